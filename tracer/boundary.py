"""What a tracer does around each step, and at the end of all: the private half of :class:`tracer.Tracer`."""

import atexit
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from tracer.batches import Batches
from tracer.capture import Capture
from tracer.errors import RecordingError, UsageError
from tracer.forecast import forecast
from tracer.gradients import Gradients
from tracer.losses import Losses
from tracer.probe import Answer, Closure, Move, ask, fill, frozen
from tracer.ranks import Elsewhere, Ranks
from tracer.ring import Ring
from tracer.scaling import Scaling
from tracer.schedule import Schedule
from tracer.store.layout import Layout
from tracer.store.run_writer import RunWriter
from tracer.subject import Subject
from tracer.surroundings import Surroundings


class Boundary:
    """Where training and recording meet. What stands here is set by :class:`tracer.Tracer`."""

    path: Path
    probes: tuple[str, ...]
    _drops: bool  # when_full
    _goes_on: bool  # on_failure
    _planned: int | None  # recorded steps to make room for
    _ranks: Ranks
    _subject: Subject
    _scaling: Scaling
    _schedule: Schedule
    _writer: RunWriter | Elsewhere
    _ring: Ring
    _surroundings: Surroundings
    _gradients: Gradients
    _batches: Batches
    _capture: Capture
    _losses: Losses
    _previous: list[torch.Tensor]  # the point of the look-back probe
    _own_previous: list[torch.Tensor]  # room for it where what is recorded does not say all of it
    _room: list[torch.Tensor]  # where the parameters are while it asks
    _previous_step: int | None  # whose point that is
    _ahead: list[int] | None  # versions of the parameters where the look-ahead probe asked
    _loss_dtype_known: bool
    _failure: RecordingError | None
    _closed: bool
    _hooks: list[RemovableHandle]

    @property
    def step(self) -> int:
        """Optimizer updates so far; the number of the step that comes next."""
        return self._schedule.step

    # --- before backward() --------------------------------------------------------------------------------------

    def _ask_before(self, closure: Closure, halves: tuple[Closure, Closure] | None) -> dict[str, Answer]:
        """What the probes find before the training's own forward pass, by stream."""
        answers = {}
        if self._previous_step is not None and self._previous_step == self.step - 1:
            answers["h"] = self._ask(closure, Move(self._subject.trained, self._previous, self._room))
        for stream, half in zip(("ga", "gb"), halves or (), strict=False):
            answers[stream] = self._ask(half)
        return answers

    def _ask(self, closure: Closure, at: Move | None = None) -> Answer:
        with self._ranks.apart():
            scale = self._scaling.scale
            return ask(frozen(closure), self._subject.parameters, self._surroundings, at=at, scale=scale)

    def _check_space(self, layout: Layout, batch_bytes: int = 0) -> None:
        """Before the first step, and in it if it has a minibatch."""
        if self._planned is not None:
            forecast(layout, self._planned, self.path, batch_bytes=batch_bytes).check(self.path)
            if batch_bytes or not layout.batches:
                self._planned = None

    def _backward_begins(self) -> None:
        self._scaling.backward_begins()
        self._ring.backward_begins()
        self._gradients.after_backward()

    def _note_loss_dtype(self, loss: torch.Tensor) -> None:
        if not self._loss_dtype_known:
            self._loss_dtype_known = True
            dtype = str(loss.dtype).removeprefix("torch.")
            self._ring.call(lambda: self._writer.update(loss_dtype=dtype))

    # --- the optimizer boundary ---------------------------------------------------------------------------------

    def _before_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        began = time.perf_counter()
        self._attend()
        if any(callable(a) for a in (*args[1:], *kwargs.values())):
            raise UsageError(
                f"{type(optimizer).__name__}.step(closure): a closure evaluates several points in one step, so "
                "there is no single gradient to record. Use an optimizer whose step() takes none."
            )
        if self._schedule.recorded:
            try:
                self._capture_before()
            except UsageError:
                self._losses.forget()
                self._capture.forget()
                raise
            except RecordingError as error:
                self._fail(error)
        self._schedule.spend(time.perf_counter() - began)

    def _capture_before(self) -> None:
        self._scaling.refuse_unknown()
        self._check_ahead()
        self._losses.check(self.step, needed=bool(self.probes) or self._batches.record)
        self._check_space(self._writer.layout, self._batches.bytes)
        self._gradients.check(self.step)
        self._capture.gradient(self.step)
        point = self._capture.point()
        left_out = self._scaling.left_out()
        if left_out:
            self._capture.skipped()
        if self._room and self._schedule.next_recorded and not left_out:
            if self._own_previous:
                fill(self._own_previous, [p.data for p in self._subject.trained])
            self._previous = self._own_previous or point
            self._previous_step = self.step

    def _after_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        began = time.perf_counter()
        if self._schedule.recorded:
            if not self._capture.holds("x"):
                return  # the update was refused before it began
            if self._capture.holds("g"):
                self._ask_ahead()
                self._average()
                self._capture.probes(self._losses)
            self._capture.optimizer()
            self._capture.submit(self.step, self._losses)
        self._next_step()
        self._schedule.spend(time.perf_counter() - began)

    def _ask_ahead(self) -> None:
        for later in self._losses.later:
            assert later.weight is not None  # backward() has seen it, or the step would have been refused
            with self._ranks.apart():
                answer = ask(
                    later.closure, self._subject.parameters, self._surroundings, as_of=later.as_of, scale=later.scale
                )
            self._losses.put("a", answer, later.weight)
        self._ahead = self._subject.versions() if self._losses.later else None

    def _check_ahead(self) -> None:
        """The probe at x_{t+1} asked where the parameters stood right after the update; there they must still stand."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead != self._subject.versions():
            raise UsageError(
                f"step {self.step}: parameters were changed after optimizer.step(), and the look-ahead probe had asked "
                "at the point before that change. Make it part of the update (a random scale belongs into the learning "
                "rate), or record without probes=['look_ahead']."
            )

    def _record_skipped_step(self) -> None:
        """The scaler found an infinite gradient and left out the update: keep point and loss, and no gradient."""
        if self._schedule.recorded:
            self._capture.skipped()
            self._average()
            self._capture.submit(self.step, self._losses)
        self._next_step()

    def _average(self) -> None:
        """What each process found on its part of the minibatch becomes what they found together."""
        if self._ranks.count > 1:
            self._ranks.average(self._losses.tensors())

    def _next_step(self) -> None:
        self._losses.forget()
        self._gradients.forget()
        self._capture.forget()
        self._schedule.advance()

    def _before_clip(self) -> None:
        if not self._schedule.recorded:
            return
        if "clip_value" in self._capture.record or "clip_factor" in self._capture.scalars:
            raise UsageError(f"step {self.step}: clipped twice; one clip per step can be recorded.")
        self._scaling.require_unscaled(self.step)
        self._gradients.check(self.step)
        self._capture.gradient(self.step)

    # --- the end ------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError(f"{self.path}: this tracer is closed; make a new one with another run id.")
        self._ring.check()

    def _attend(self) -> None:
        """Before anything else in a step: is it recorded after all?"""
        if self._failure is not None:
            return
        try:
            self._check_open()
            if self._drops and self._schedule.recorded and not self._capture.reserve():
                self._schedule.leave_out("disk slower than training")
        except RecordingError as error:
            self._fail(error)

    def _fail(self, error: RecordingError) -> None:
        """Stop training, or go on without recording, as the user chose."""
        if not self._goes_on:
            raise error
        self._failure = error
        self._schedule.stop("recording failed")
        warnings.warn(f"{error} Training goes on unrecorded, from step {self.step} on.", RuntimeWarning, stacklevel=4)

    def _close(self, reason: str, final_point: bool, error: str | None = None, quiet: bool = False) -> None:
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self._at_exit)
        for hook in self._hooks:
            hook.remove()
        if final_point and self._ring.error is None:
            if self._scaling.dropped() and self._losses.asked:
                self._record_skipped_step()
            if self.step:
                self._losses.forget()
                self._capture.forget()
                self._capture.point()
                self._capture.submit(self.step, self._losses)
        self._ring.stop()
        failure = self._ring.error
        if failure is not None:
            reason, error = "recording failed", str(failure)
        details: dict[str, Any] = {} if error is None else {"error": error}
        if left_out := self._schedule.account():
            details["left_out"] = left_out
        try:
            self._writer.close(reason, **details)
        except OSError as problem:
            failure = failure or problem
        if failure is not None and not quiet and self._failure is None:
            raise RecordingError(f"recording has stopped: {failure}") from failure

    def _at_exit(self) -> None:
        crashed = getattr(sys, "last_value", None) is not None
        self._close("interpreter exit", final_point=not crashed, quiet=True)
