"""The hand-over from training to disk: a few preallocated slots, one writer thread, bounded memory."""

import math
import os
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tracer.errors import RecordingError
from tracer.ranks import Elsewhere
from tracer.staging import Staging
from tracer.store.layout import Layout
from tracer.store.minibatch import Message
from tracer.store.run_writer import RunWriter, Step

Array = npt.NDArray[Any]
MOST_BYTES = 1 << 30  # of a ring's slots, unless two are larger
SMALL_BYTES = 8 << 20  # a ring of more than four slots is no larger
MOST_SLOTS = 32
HELD = 0.25  # seconds for which a step may wait for the next backward pass
COMING = object()  # in a step record: the value travels in Slot.scalars


def slots_for(step_bytes: int) -> int:
    """How many slots a ring has: four, but up to 32 small or two large ones.

    The writer takes all that wait at once, and what it pays per call is what short steps cost it: with sixteen of
    10,000 parameters in one call it is as fast as a bare write and its hash.
    """
    return max(2, min(4, MOST_BYTES // step_bytes), min(MOST_SLOTS, SMALL_BYTES // step_bytes))


@dataclass
class Slot:
    """Room for one step: a flat tensor of shape ``(d,)`` per stream, and the step record.

    ``flat`` and ``scalars`` are where training writes, on its own device; ``host``, its numpy views ``rows``, and
    ``values`` are the same numbers on the host. ``scalars`` is float64, for values that may still be on their way when
    the step ends.
    """

    flat: dict[str, torch.Tensor]
    scalars: torch.Tensor
    host: dict[str, torch.Tensor]
    rows: dict[str, Array]
    values: torch.Tensor
    step: int = -1
    filled: set[str] = field(default_factory=set)
    record: dict[str, Any] = field(default_factory=dict)
    batches: Callable[[], Message] | None = None  # waits for the minibatch and gives its message
    arrived: Callable[[], None] | None = None  # waits until the numbers are on the host

    def exchange(self, stream: str, flat: torch.Tensor) -> torch.Tensor:
        """Take ``flat`` as what training wrote of ``stream``; returns the tensor it replaces. Nothing is copied."""
        own, self.flat[stream] = self.flat[stream], flat
        if self.flat is self.host:
            self.rows[stream] = flat.numpy()
        self.filled.add(stream)
        return own


class Ring:
    """Slots that go round between the training thread and the writer thread.

    Memory is bounded: when every slot waits for the disk, :meth:`take` waits too, and :meth:`take_if_free` gives None.

    A writer with nothing else to do begins when the next backward pass begins, or after :data:`HELD` seconds: a
    forward pass and an optimizer need the interpreter all the time, and two threads that take it from each other
    a hundred times a step slow down training; the backward pass leaves it alone.

    Args:
        writer: receives the steps, on the writer thread only.
        slots: how many steps may wait for the disk.
        device: where training happens; from CUDA, a side stream carries the numbers into page-locked memory.
        scalars: names of the record columns that travel in :attr:`Slot.scalars`.
    """

    def __init__(
        self,
        writer: RunWriter | Elsewhere,
        layout: Layout,
        slots: int,
        device: torch.device,
        scalars: tuple[str, ...],
    ) -> None:
        self._writer, self._scalars = writer, scalars
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        self._work: queue.SimpleQueue[Slot | Callable[[], None] | None] = queue.SimpleQueue()
        self._staging = Staging(layout, len(scalars), device) if device.type == "cuda" else None
        dtype, pin = getattr(torch, layout.dtype), self._staging is not None
        for _ in range(slots):
            host = {s: torch.zeros(layout.parameters, dtype=dtype, pin_memory=pin) for s in layout.streams}
            values = torch.zeros(len(scalars), dtype=torch.float64, pin_memory=pin)
            self._free.put(Slot(host, values, host, {s: t.numpy() for s, t in host.items()}, values))
        self._slots = slots
        self._held: Slot | None = None
        self._handing_over = threading.Lock()
        self._backward_seen = False  # in this step
        self.error: BaseException | None = None
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._run, name="lemmata-writer", daemon=True)
        self._thread.start()

    def take(self) -> Slot:
        """A free slot, ready to be filled; waits for the disk if there is none.

        Raises:
            RecordingError: the writer has stopped.
        """
        while (slot := self.take_if_free(patience=0.2)) is None:
            pass
        return slot

    def take_if_free(self, patience: float = 0.0) -> Slot | None:
        """A free slot, or None if there is none within ``patience`` seconds; raises as :meth:`take` does."""
        try:
            slot = self._free.get(block=patience > 0, timeout=patience)
        except queue.Empty:
            self.check()
            if not self._thread.is_alive():
                raise RecordingError("recording has stopped: the writer thread is gone") from None
            return None
        slot.filled.clear()
        slot.record.clear()
        if self._staging is not None:
            slot.flat, slot.scalars = self._staging.take()
        return slot

    def submit(self, slot: Slot) -> None:
        """Hand a filled slot to the writer; from CUDA this starts the transfer and waits for nothing."""
        if self._staging is not None:
            slot.arrived = self._staging.send({s: slot.host[s] for s in slot.filled}, slot.values)
        idle = self._free.qsize() == self._slots - 1
        if idle and self._backward_seen:  # so the next step will have one
            self._held = slot
        else:
            self._let_go()
            self._work.put(slot)
        self._backward_seen = False

    def backward_begins(self) -> None:
        """The training thread will not need the interpreter for a while."""
        self._backward_seen = True
        self._let_go()

    def call(self, action: Callable[[], None]) -> None:
        """Have the writer thread do ``action`` after everything submitted before."""
        self._let_go()
        self._work.put(action)

    def check(self) -> None:
        """Raise what stopped the writer, if anything did."""
        if self.error is not None:
            raise RecordingError(f"recording has stopped: {self.error}") from self.error
        if os.getpid() != self._process:
            raise RecordingError("recording has stopped: this process was forked from the one that records")

    def drain(self) -> None:
        """Wait until everything submitted so far is acknowledged, or the writer has stopped; raises nothing."""
        done = threading.Event()
        self.call(done.set)
        while self._thread.is_alive() and not done.wait(0.1):
            pass

    def stop(self) -> None:
        """Let the writer finish what it has, and end its thread; raises nothing."""
        if self._thread.is_alive():  # not in a fork, where the lock may be held for ever
            self._let_go()
        self._work.put(None)
        while self._thread.is_alive():
            self._thread.join(0.5)

    def _let_go(self) -> None:
        with self._handing_over:
            slot, self._held = self._held, None
            if slot is not None:
                self._work.put(slot)

    def _next(self) -> Slot | Callable[[], None] | None:
        while True:
            try:
                return self._work.get(timeout=HELD)
            except queue.Empty:
                self._let_go()

    def _items(self) -> Iterator[list[Slot] | Callable[[], None]]:
        """The work as it comes, slots that wait together in one list."""
        while (item := self._next()) is not None:
            slots: list[Slot] = []
            while isinstance(item, Slot):
                slots.append(item)
                item = _nothing if self._work.empty() else self._work.get()
            if slots:
                yield slots
            if item is None:
                return
            yield item

    def _run(self) -> None:
        for item in self._items():
            try:
                if isinstance(item, list):
                    if self.error is None:
                        self._writer.append_all([self._step(slot) for slot in item])
                elif self.error is None or isinstance(getattr(item, "__self__", None), threading.Event):
                    item()
            except BaseException as error:  # whatever it is, training must hear of it
                self.error = error
            if isinstance(item, list):
                for slot in item:
                    self._free.put(slot)

    def _step(self, slot: Slot) -> Step:
        if slot.arrived is not None:
            slot.arrived()
        rows, record = {stream: slot.rows[stream] for stream in slot.filled}, slot.record
        if COMING in record.values():
            arrived = zip(self._scalars, slot.values.tolist(), strict=True)
            record.update({name: value for name, value in arrived if record.get(name) is COMING})
        given = [record[name] for name in self._scalars if name in record]
        finite = all(map(_finite, rows.values())) and all(map(math.isfinite, given)) and not record.get("skipped")
        batches = () if slot.batches is None else slot.batches()
        return Step(slot.step, {**record, "finite": finite}, rows, batches)


def _nothing() -> None:
    """In the place of work, where none waits."""


def _finite(row: Array) -> bool:
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.dot(row, row)) or np.isfinite(row).all())
