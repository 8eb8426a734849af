"""The same training, many times side by side: alone, recorded by Lemmata, recorded by a peer.

Each contender has its own model, optimizer and files, starts from the same seed and sees the same minibatches.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.benchmarks.peers import Record
from tracer import Tracer
from tracer.workloads import Batch, Workload
from tracer.workloads.training import OPTIMIZERS

Seconds = tuple[float, float]  # by the clock, and of processor time

MINIBATCHES = 50  # drawn beforehand, then again and again: drawing is not what is measured


class Training:
    """Training without a tracer; :meth:`turn` returns seconds per step.

    Args:
        record: is given x and g of every step just before the update.
        extra: asks loss and gradient once more in every step, as the look-back probe must.
    """

    def __init__(self, problem: Workload, steps: int, record: Record | None = None, extra: bool = False) -> None:
        self.problem, self.steps = problem, steps
        self.record, self.extra = record, extra
        self.model: nn.Module = problem.build_model(0)
        self.parameters = list(self.model.parameters())
        self.optimizer = OPTIMIZERS["adamw"](self.parameters, lr=problem.learning_rates["adamw"])
        self.batches = cycle(list(islice(problem.batches(0), MINIBATCHES)))
        self.done = 0
        self.calls: list[Seconds] = []  # what recording took of the training thread, per step
        self.cpu: list[tuple[float, float]] = []  # per turn, seconds a step: of this thread, of the whole process

    def turn(self) -> float:
        """Train ``steps`` steps and wait until what was recorded is written."""
        thread, process, begin = time.thread_time(), time.process_time(), time.perf_counter()
        for _, _, batch in islice(self.batches, self.steps):
            self.optimizer.zero_grad()
            self.step(batch)
            self.done += 1
        self.settle()
        seconds = time.perf_counter() - begin
        used = time.thread_time() - thread, time.process_time() - process
        self.cpu.append((used[0] / self.steps, used[1] / self.steps))
        return seconds / self.steps

    def step(self, batch: Batch) -> None:
        """One optimizer update."""
        if self.extra:
            torch.autograd.grad(self.problem.loss(self.model, batch), self.parameters)
        self.problem.loss(self.model, batch).backward()  # type: ignore[no-untyped-call]
        if self.record is not None:
            begin = clocks()
            x = torch.cat([p.detach().reshape(-1) for p in self.parameters])
            g = torch.cat([p.grad.reshape(-1) for p in self.parameters if p.grad is not None])
            self.record(self.done, x, g)
            wall, cpu = clocks() - begin
            self.calls.append((float(wall), float(cpu)))
        self.optimizer.step()

    def settle(self) -> None:
        """Wait for whatever is still being written."""

    def close(self) -> None:
        """Let go of files and threads."""


class Traced(Training):
    """The same training with Lemmata's tracer; ``timed`` keeps :attr:`calls`, which costs some microseconds itself."""

    def __init__(
        self, problem: Workload, steps: int, run: Path, probes: tuple[str, ...] = (), timed: bool = False
    ) -> None:
        super().__init__(problem, steps)
        self.tracer = (
            TimedTracer(run, self.model, self.optimizer, self.calls)
            if timed
            else Tracer(run, self.model, self.optimizer, probes=probes)
        )

    def step(self, batch: Batch) -> None:
        """One optimizer update, recorded."""
        loss = self.tracer.loss(lambda: self.problem.loss(self.model, batch), batch=self.done)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def settle(self) -> None:
        """Wait until the writer has nothing left to do: acknowledged, and sealed where a chunk was full."""
        self.tracer._ring.drain()

    def close(self) -> None:
        """End the run."""
        self.tracer.close()


class TimedTracer(Tracer):
    """A tracer that keeps the seconds it took of the training thread in each step: its calls, less the closures."""

    def __init__(
        self,
        run: Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        calls: list[Seconds],
    ) -> None:
        self.calls, self.spent = calls, np.zeros(2)
        super().__init__(run, model, optimizer)

    def loss(self, closure: Callable[[], torch.Tensor], **given: Any) -> torch.Tensor:
        """As the tracer's."""

        def outside() -> torch.Tensor:
            with self._clock(-1):
                return closure()

        with self._clock():
            return super().loss(outside, **given)

    def _weigh(self, *arguments: Any) -> None:
        with self._clock():
            super()._weigh(*arguments)

    def _before_step(self, *arguments: Any) -> None:
        with self._clock():
            super()._before_step(*arguments)

    def _after_step(self, *arguments: Any) -> None:
        with self._clock():
            super()._after_step(*arguments)
        self.calls.append((float(self.spent[0]), float(self.spent[1])))
        self.spent[:] = 0

    @contextmanager
    def _clock(self, sign: int = 1) -> Iterator[None]:
        begin = clocks()
        try:
            yield
        finally:
            self.spent += sign * (clocks() - begin)


def clocks() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Now, and the processor time of this thread."""
    return np.array((time.perf_counter(), time.thread_time()))
