"""One step into one slot, piece by piece: point, gradient, probes, optimizer buffers, record."""

import time
from typing import Any

import torch

from tracer.batches import Batches
from tracer.gradients import Gradients
from tracer.losses import Losses
from tracer.probe import fill
from tracer.ring import COMING, Ring, Slot
from tracer.store.layout import BUFFER
from tracer.subject import Subject, Views

SCALARS = ("loss", "loss_previous", "loss_next", "clip_factor")  # may still be on the device when the step ends


class Capture:
    """Fills a slot of the ring with the present step and hands it to the writer.

    Args:
        buffers: what to record of the optimizer's state.
        batches: the minibatches that losses were asked for.
    """

    def __init__(
        self, ring: Ring, subject: Subject, gradients: Gradients, buffers: tuple[str, ...], batches: Batches
    ) -> None:
        self._ring, self._subject, self._gradients, self._buffers = ring, subject, gradients, buffers
        self._numbers = tuple((f"hyper:{h.name}", h) for h in subject.hyperparameters())
        self._batches = batches
        self._slot: Slot | None = None
        self._known_views = Views(subject)
        self.forget()

    def forget(self) -> None:
        """Begin a step; a slot that was not handed over is used again."""
        if self._slot is not None:
            self._slot.filled.clear()
        self._batches.forget()
        self.record: dict[str, Any] = {}  # columns of the step record known so far
        self.scalars: dict[str, torch.Tensor] = {}  # those of SCALARS

    def reserve(self) -> bool:
        """Make sure of a slot without waiting for one; False if all are waiting for the disk."""
        if self._slot is None:
            self._slot = self._ring.take_if_free()
        return self._slot is not None

    def holds(self, stream: str) -> bool:
        """Whether ``stream`` of this step is captured."""
        return self._slot is not None and stream in self._slot.filled

    def gradient(self, step: int) -> None:
        """Copy the gradient, unless it was copied before the clip."""
        if not self.holds("g"):
            self._gradients.copy_to(self._views("g"), step)
            self._filled("g")

    def point(self) -> list[torch.Tensor]:
        """Copy the parameters as they are; the copies stand until the slot after the next one is taken.

        A ring has two slots at least and gives them out in turn.
        """
        views = self._views("x")
        with torch.no_grad():
            fill(views, self._subject.parameters)
        self._filled("x")
        return views

    def skipped(self) -> None:
        """A gradient scaler leaves out this update: keep the point and the loss, and no gradient."""
        self.point()
        self._free().filled.intersection_update({"x"})
        self.record["skipped"] = True

    def probes(self, losses: Losses) -> None:
        """Take what the probes found, and leave them room for the next step."""
        for stream in losses.filled:
            losses.flat[stream] = self._free().exchange(stream, losses.flat[stream])

    def optimizer(self) -> None:
        """Copy the optimizer's buffers and hyperparameters as they are after the update."""
        for name in self._buffers:
            fill(self._views(BUFFER + name), self._subject.state(name))
            self._filled(BUFFER + name)
        groups = self._subject.optimizer.param_groups
        for column, hyperparameter in self._numbers:
            self.record[column] = hyperparameter.now(groups)

    def submit(self, step: int, losses: Losses) -> None:
        """Hand the step to the writer."""
        slot, self._slot = self._free(), None
        slot.record.clear()
        for name, value in (losses.totals | self.scalars).items():
            if isinstance(value, float):
                slot.record[name] = value
            elif value.is_cpu:
                slot.record[name] = value.item()
            else:
                slot.scalars[SCALARS.index(name)].copy_(value)
                slot.record[name] = COMING
        slot.record.update(self.record, time_ns=time.time_ns())
        slot.step = step
        slot.batches = self._batches.hand_over()
        self._ring.submit(slot)

    def _free(self) -> Slot:
        if self._slot is None:
            self._slot = self._ring.take()
        return self._slot

    def _views(self, stream: str) -> list[torch.Tensor]:
        return self._known_views(self._free().flat[stream])

    def _filled(self, stream: str) -> None:
        self._free().filled.add(stream)
