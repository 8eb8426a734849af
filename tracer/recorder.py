"""The tracer: a few lines in a training loop, and every step is on disk."""

import atexit
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import torch

from tracer.batches import Batches, Tensors
from tracer.boundary import Boundary
from tracer.capture import SCALARS, Capture
from tracer.clipping import limit_alone
from tracer.errors import UsageError
from tracer.gradients import Gradients
from tracer.losses import Later, Losses, differentiable
from tracer.opening import PROBES, known, manifest_of, not_negative, whole
from tracer.plan import Every, Plan, count
from tracer.probe import Closure, frozen
from tracer.ranks import Elsewhere, Ranks
from tracer.ring import Ring, slots_for
from tracer.scaling import Scaling
from tracer.schedule import Budget, Schedule
from tracer.store.home import resolve_run
from tracer.store.run_writer import CHUNK_BYTES, CHUNK_SECONDS, RunWriter
from tracer.subject import Subject, inside
from tracer.surroundings import Generator, Surroundings


class Tracer(Boundary):
    """Records point, gradient and loss of every optimizer step, without changing any of them.

    Capture happens in the optimizer's own step hooks: x_t and g_t are taken just before the update. Probes evaluate the
    same minibatch again, with the same random numbers and buffers: ``look_back`` at x_{t-1}, before the forward pass;
    ``look_ahead`` at x_{t+1}, after the update; ``half_batches`` its two halves at x_t.

    Args:
        run: a run id (recorded under ``$LEMMATA_HOME/runs``) or the path of a directory to make.
        model: the module that holds every trained parameter.
        optimizer: any torch optimizer that is called without a closure.
        probes: some of ``"look_back"``, ``"look_ahead"``, ``"half_batches"``. The first two cost one more forward and
            backward pass each; the last costs two on half the minibatch.
        plan: which steps: ``Every()``, ``EveryNth(n)``, ``Bursts(length, period)`` of :mod:`tracer.plan`. A probe runs
            only where the step beside it is recorded too.
        blocks: patterns of parameter names to record, ``["layer1.*"]``; None records all. Losses then still belong to
            the whole model, so what needs both is not computed.
        store: dtype of the vectors: ``"as trained"``, ``"float32"`` or ``"float64"``.
        optimizer_buffers: what to record of the optimizer's state after each update, ``["exp_avg", "exp_avg_sq"]``.
        record_batches: True keeps each step's minibatch z_t, for evaluating f(x, z_t) again later: give every
            ``tracer.loss`` its ``tensors``. The state of random streams is kept where the loss draws from one.
        data: the data set, name to tensor, that minibatches are rows of: give ``tracer.loss`` its ``rows``, which are
            kept instead of the examples, with a fingerprint of the data set. It is read once, now.
        workload: ``"package.module:name"`` of an object that can build the model and compute the loss of a recorded
            minibatch (:class:`tracer.replay.Workload`); its name and a hash of its source are kept for replaying.
        config: what you want to find again: plain JSON, kept in the manifest.
        grad_scaler: your ``torch.amp.GradScaler``, if you use one; losses and gradients are recorded unscaled.
        generators: random generators of your own that the loss draws from, so that a probe draws the same.
        missing_gradient: ``"error"``, or ``"zero"`` for models whose loss may not depend on every parameter.
        changed_gradients: ``"error"``, or ``"record"`` where gradients are changed on purpose before the update.
        changed_updates: ``"error"``, or ``"record"`` where points are changed on purpose besides the optimizer's update
            (clamped, projected, averaged, scaled by hand): analysis then reports what is not the optimizer's, and goes
            on. A factor alone is better said with ``random_scale=``.
        frozen: ``"skip"``, or ``"record"`` also the optimizer's frozen parameters, for unfreezing them later.
        chunk_bytes, chunk_seconds: a chunk file is sealed when its vectors fill about this many bytes, or at this age.
        when_full: when the disk is slower than training, ``"block"`` waits for it; ``"drop"`` leaves steps out.
        on_failure: when recording fails, ``"stop"`` raises in the training loop; ``"continue"`` warns, and trains on
            unrecorded. Either way what is acknowledged stays, and the manifest says what is missing and why.
        budget: share of training time that recording may take, say 0.03; the plan is thinned out to keep it.
        steps: how many updates you plan; the run is refused here and now if the disk cannot hold it (and again at the
            first step, when the size of its minibatch is known).
        check_space: False if you will make room in time.
        resume_at: go on with a run that exists, from this step on, in a further attempt.
        branch_of: ``(run id, step)`` of the run whose checkpoint this one starts from; kept in the manifest.

    Processes that train together under ``DistributedDataParallel`` each make a tracer of the wrapped model; the first
    one writes the run, whose losses and probes are those of the minibatch they share.

    What is left out by ``drop``, ``budget`` or a failure is a gap in the steps, and is counted in the manifest.

    Raises:
        UsageError: a wrong argument, the run exists already, or the disk cannot hold it.
        OSError: the run's directory cannot be written.

    Example:
        >>> import tempfile
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with tempfile.TemporaryDirectory() as folder, Tracer(f"{folder}/run", model, optimizer) as tracer:
        ...     for _ in range(3):
        ...         optimizer.zero_grad()
        ...         tracer.loss(lambda: model(torch.ones(4, 2)).square().mean()).backward()
        ...         optimizer.step()
        >>> tracer.step
        3
    """

    def __init__(
        self,
        run: str | os.PathLike[str],
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        probes: Iterable[str] = (),
        plan: Plan | None = None,
        blocks: Sequence[str] | None = None,
        store: str = "as trained",
        optimizer_buffers: Sequence[str] = (),
        record_batches: bool = False,
        data: Tensors | None = None,
        workload: str | None = None,
        config: Mapping[str, Any] | None = None,
        grad_scaler: "torch.amp.GradScaler | None" = None,
        generators: Sequence[Generator] = (),
        missing_gradient: Literal["error", "zero"] = "error",
        changed_gradients: Literal["error", "record"] = "error",
        changed_updates: Literal["error", "record"] = "error",
        frozen: Literal["skip", "record"] = "skip",
        chunk_bytes: int = CHUNK_BYTES,
        chunk_seconds: float = CHUNK_SECONDS,
        when_full: Literal["block", "drop"] = "block",
        on_failure: Literal["stop", "continue"] = "stop",
        budget: float | None = None,
        steps: int | None = None,
        check_space: bool = True,
        resume_at: int | None = None,
        branch_of: tuple[str, int] | None = None,
    ) -> None:
        self.path = resolve_run(run)
        self.probes = known("probes", probes, PROBES)
        known("missing_gradient", (missing_gradient,), ("error", "zero"))
        known("changed_gradients", (changed_gradients,), ("error", "record"))
        known("changed_updates", (changed_updates,), ("error", "record"))
        known("frozen", (frozen,), ("skip", "record"))
        known("when_full", (when_full,), ("block", "drop"))
        known("on_failure", (on_failure,), ("stop", "continue"))
        chunk_bytes, chunk_seconds = whole("chunk_bytes", chunk_bytes, 1), not_negative("chunk_seconds", chunk_seconds)
        steps = None if steps is None else whole("steps", steps, 1)
        resume_at = None if resume_at is None else whole("resume_at", resume_at, 0)
        self._drops, self._goes_on = when_full == "drop", on_failure == "continue"
        plan = plan or Every()
        self._ranks = Ranks(model, model.parameters() if isinstance(model, torch.nn.Module) else ())
        self._ranks.refuse(
            self.probes,
            budget=budget is not None,
            record_batches=record_batches,
            **{"when_full='drop'": self._drops, "on_failure='continue'": self._goes_on},
        )
        self._subject = Subject.of(model, optimizer, blocks, frozen == "record", store)
        self._scaling = Scaling(grad_scaler, optimizer)
        buffers = tuple(optimizer_buffers)
        manifest = manifest_of(
            self.path.name,
            self._subject,
            plan,
            self.probes,
            buffers,
            config,
            branch_of,
            batches=record_batches,
            changed_updates=changed_updates,
            workload=workload,
            data=data,
        )
        layout = manifest.layout
        forecasts = steps is not None and check_space and self._ranks.first
        self._planned = count(plan, steps) if steps is not None and forecasts else None
        self._check_space(layout)
        self._schedule = Schedule(plan, resume_at or 0, None if budget is None else Budget(budget))
        self._writer = (
            RunWriter(self.path, manifest, chunk_bytes, resume_at, chunk_seconds)
            if self._ranks.first
            else Elsewhere(manifest)
        )
        device = self._subject.parameters[0].device
        self._ring = Ring(self._writer, layout, slots_for(layout.step_bytes), device, SCALARS)
        self._surroundings = Surroundings(inside(model), self._subject.trained, generators)
        self._gradients = Gradients(self._subject, missing_gradient == "zero", changed_gradients == "record")
        around = self._surroundings
        examples = manifest.data["examples"] if manifest.data else None
        self._batches = Batches(record_batches, inside(model), around.devices, around.generators, examples)
        self._capture = Capture(self._ring, self._subject, self._gradients, buffers, self._batches)
        self._losses = Losses(self._subject, tuple(s for s in layout.streams if s in ("h", "a", "ga", "gb")))
        look_back = "look_back" in self.probes
        self._room = [torch.zeros_like(p) for p in self._subject.trained] if look_back else []
        self._own_previous = [] if self._subject.recorded_exactly else [torch.zeros_like(p) for p in self._room]
        self._previous = []
        self._previous_step = None  # whose point that is
        self._ahead = None  # versions of the parameters where the look-ahead probe asked
        self._loss_dtype_known = False
        self._failure = None
        self._closed = False
        self._hooks = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]
        atexit.register(self._at_exit)

    def loss(
        self,
        closure: Closure,
        *,
        epoch: int | None = None,
        batch: int | None = None,
        random_scale: float | None = None,
        halves: tuple[Closure, Closure] | None = None,
        tensors: Tensors | None = None,
        rows: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Evaluate the training loss on a minibatch and return it, ready for ``backward()``.

        Call it once per ``backward()``: with gradient accumulation, once per micro-batch. The recorded loss is what
        backward() differentiates, so ``(tracer.loss(...) / n).backward()`` counts as one n-th.

        Args:
            closure: computes the loss, a scalar, from the model and one minibatch. It is called now and once more per
                probe; it must fetch no new data. Variables it assigns (``nonlocal``) get the training call's values.
            epoch, batch: yours, recorded with the step; ``batch`` identifies the minibatch.
            random_scale: s_t, if this step's update will be multiplied by a random number.
            halves: closures of the two halves of the minibatch, for the probe ``half_batches``.
            tensors: name to tensor, what the closure computes the loss from besides the parameters, for
                ``record_batches``: ``{"inputs": inputs, "targets": targets}``, or ``{"indices": chosen}`` where that
                says it all. Copied now.
            rows: which rows of ``Tracer(data=...)`` the minibatch is; with ``tensors`` for what else the loss reads.

        Raises:
            UsageError: the closure does not return a scalar that can be differentiated.
            RecordingError: recording has stopped; the message says why.
        """
        began = time.perf_counter()
        self._attend()
        if self._scaling.dropped() and self._losses.asked:
            self._record_skipped_step()
        if (halves is None) == ("half_batches" in self.probes):
            raise UsageError(
                "tracer.loss: halves=(closure_a, closure_b) and probes=['half_batches'] go together; "
                f"found halves={'None' if halves is None else '...'} and probes={list(self.probes)}."
            )
        tensors = self._batches.checked(tensors, rows)
        if not self._schedule.recorded:
            self._losses.asked += 1
            return closure()
        given = {"epoch": epoch, "batch": batch, "random_scale": random_scale}
        self._capture.record.update({k: v for k, v in given.items() if v is not None})
        answers = self._ask_before(closure, halves)
        later = None
        if "look_ahead" in self.probes and self._schedule.next_recorded:
            later = Later(frozen(closure), self._surroundings.now(), self._scaling.scale)
        self._batches.take(tensors)
        self._schedule.spend(time.perf_counter() - began)
        loss = differentiable(closure())
        self._batches.evaluated(loss, self._scaling.scale)
        self._note_loss_dtype(loss)
        self._losses.add(loss, answers, later, self._scaling.scale, self._backward_begins)
        return loss

    @limit_alone
    def clip_grad_norm_(
        self, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
    ) -> torch.Tensor:
        """``torch.nn.utils.clip_grad_norm_`` over the trained parameters, keeping the gradient before the clip.

        Recorded times ``clip_factor``, rounded to the dtype of the gradient, is the clipped gradient bit for bit.

        Returns:
            the gradient's norm before clipping, as torch does.
        """
        self._before_clip()
        norm = torch.nn.utils.clip_grad_norm_(self._subject.trained, max_norm, norm_type, error_if_nonfinite)
        if self._schedule.recorded:
            self._capture.scalars["clip_factor"] = torch.clamp(max_norm / (norm + 1e-6), max=1.0)  # torch's own formula
            self._gradients.note()
        return norm

    @limit_alone
    def clip_grad_value_(self, clip_value: float) -> None:
        """``torch.nn.utils.clip_grad_value_`` over the trained parameters, keeping the gradient before the clip.

        The threshold is recorded as ``clip_value``: clamping the recorded gradient gives the clipped one bit for bit.
        """
        self._before_clip()
        torch.nn.utils.clip_grad_value_(self._subject.trained, clip_value)
        if self._schedule.recorded:
            self._capture.record["clip_value"] = float(clip_value)
            self._gradients.note()

    @property
    def acknowledged(self) -> int | None:
        """The last step that is in the files and survives the death of this process; None before the first."""
        return self._writer.last_step

    def flush(self) -> None:
        """Wait until every step so far is on the disk itself, safe from a power loss."""
        self._check_open()
        self._ring.call(self._writer.flush)
        self._ring.drain()
        self._ring.check()

    def close(self) -> None:
        """Record the final point, seal what is open, and say in the manifest that the run finished."""
        self._close("finished", final_point=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._close("finished", final_point=True)
        else:
            text = f"{type(error).__name__}: {error}"
            self._close("exception", final_point=False, error=text[:2000], quiet=True)
