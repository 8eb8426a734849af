"""The tracer: a few lines in a training loop, and every step is on disk."""

import atexit
import os
import platform
import sys
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from types import TracebackType
from typing import Any, Literal, Self

import torch

from tracer.errors import RecordingError, UsageError
from tracer.probe import Closure, ask, fill
from tracer.ring import Ring, Slot
from tracer.store.home import resolve_run
from tracer.store.manifest import Manifest
from tracer.store.run_writer import CHUNK_BYTES, RunWriter, now
from tracer.subject import Subject

PROBES = ("look_back",)
RING_BYTES = 1 << 30  # the ring has four slots unless that is more than this; then fewer, but two


class Tracer:
    """Records point, gradient and loss of every optimizer step, without changing any of them.

    Capture happens in the optimizer's own step hooks: x_t and g_t are taken just before the update. With the look-back
    probe, :meth:`loss` first evaluates the same minibatch at x_{t-1}, with the same random numbers and buffers.

    Args:
        run: a run id (recorded under ``$LEMMATA_HOME/runs``) or the path of a directory to make.
        model: the module that holds every trained parameter.
        optimizer: any torch optimizer that is called without a closure.
        probes: ``["look_back"]`` records f(x_{t-1}, z_t) and its gradient; costs one more forward and backward pass.
        config: what you want to find again: plain JSON, kept in the manifest.
        grad_scaler: your ``torch.amp.GradScaler``, if you use one; losses and gradients are recorded unscaled.
        missing_gradient: ``"error"``, or ``"zero"`` for models whose loss may not depend on every parameter.
        chunk_bytes: a chunk file is sealed when it holds about this many bytes of vectors.

    Raises:
        UsageError: a wrong argument, or the run exists already.
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
        config: Mapping[str, Any] | None = None,
        grad_scaler: "torch.amp.GradScaler | None" = None,
        missing_gradient: Literal["error", "zero"] = "error",
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self.path = resolve_run(run)
        self.step = 0
        self.probes = _known("probes", tuple(probes), PROBES)
        _known("missing_gradient", (missing_gradient,), ("error", "zero"))
        self._zero_missing = missing_gradient == "zero"
        self._subject = Subject.of(model, optimizer)
        self._scaler = grad_scaler
        self._numbers = tuple(self._subject.numbers())
        look_back = "look_back" in self.probes
        manifest = Manifest(
            run_id=self.path.name,
            created=now(),
            blocks=self._subject.blocks,
            streams=("x", "g", "h") if look_back else ("x", "g"),
            dtype=str(self._subject.dtype).removeprefix("torch."),
            hyperparameters=self._numbers,
            optimizer=self._subject.description(),
            plan={"steps": "every", "probes": list(self.probes)},
            config=dict(config or {}),
            versions=_versions(),
            frozen_parameters=self._subject.frozen,
        )
        self._writer = RunWriter(self.path, manifest, chunk_bytes)
        layout = manifest.layout
        device = self._subject.parameters[0].device
        slots = max(2, min(4, RING_BYTES // layout.step_bytes))
        self._ring = Ring(self._writer, layout, slots, device, ("loss", "loss_previous"))
        flat = torch.zeros(layout.parameters if look_back else 0, dtype=self._subject.dtype, device=device)
        self._previous = self._subject.views(flat) if look_back else []
        self._has_previous = False
        self._h = self._subject.views(torch.zeros_like(flat)) if look_back else []
        self._scale: float | None = None
        self._losses: list[torch.Tensor] = []  # this step's, each already times the weight backward() gave it
        self._previous_losses: list[torch.Tensor] = []
        self._asked = 0  # losses given out in this step, and those of them that backward() has seen
        self._weighed = 0
        self._slot: Slot | None = None
        self._record: dict[str, Any] = {}
        self._closed = False
        self._hooks = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]
        atexit.register(self._at_exit)

    def loss(
        self, closure: Closure, *, epoch: int | None = None, batch: int | None = None, random_scale: float | None = None
    ) -> torch.Tensor:
        """Evaluate the training loss on a minibatch and return it, ready for ``backward()``.

        Call it once per ``backward()``: with gradient accumulation, once per micro-batch. The recorded loss is what
        backward() differentiates, so ``(tracer.loss(...) / n).backward()`` counts as one n-th.

        Args:
            closure: computes the loss, a scalar, from the model and one minibatch. It is called now, and with the
                look-back probe once more before that; it must fetch no new data.
            epoch, batch: yours, recorded with the step; ``batch`` identifies the minibatch.
            random_scale: s_t, if this step's update will be multiplied by a random number.

        Raises:
            UsageError: the closure does not return a scalar that can be differentiated.
            RecordingError: recording has stopped; the message says why.
        """
        self._check_open()
        scale = None if self._scaler is None else float(self._scaler.get_scale())
        if self._asked and scale is not None and self._scale is not None and scale < self._scale:
            self._record_skipped_step()  # GradScaler lowers its scale when it skips a step, and only then
        self._scale = scale
        given = {"epoch": epoch, "batch": batch, "random_scale": random_scale}
        self._record.update({k: v for k, v in given.items() if v is not None})
        probe = None
        if self._has_previous:
            probe = ask(closure, self._subject.parameters, self._previous, self._subject.model, scale or 1.0)
        loss = closure()
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
            found = (
                f"shape {tuple(loss.shape)}, requires_grad={loss.requires_grad}"
                if isinstance(loss, torch.Tensor)
                else type(loss).__name__
            )
            raise UsageError(
                f"tracer.loss: the closure must return a scalar tensor that backward() can differentiate; "
                f"found {found}. Return the training loss itself, neither detached nor computed under torch.no_grad()."
            )
        if self._writer.manifest.loss_dtype is None and self.step == 0 and not self._asked:
            dtype = str(loss.dtype).removeprefix("torch.")
            self._ring.call(lambda: self._writer.update(loss_dtype=dtype))
        value = loss.detach()
        self._asked += 1
        loss.register_hook(lambda weight: self._weigh(weight, value, probe))  # type: ignore[no-untyped-call]
        return loss

    def clip_grad_norm_(self, max_norm: float, norm_type: float = 2.0) -> torch.Tensor:
        """``torch.nn.utils.clip_grad_norm_`` over the recorded parameters, keeping the gradient before the clip.

        Returns:
            the gradient's norm before clipping, as torch does. The factor is recorded as ``clip_factor``.
        """
        self._capture_gradient()
        norm = torch.nn.utils.clip_grad_norm_(self._subject.parameters, max_norm, norm_type)
        self._record["clip_factor"] = min(1.0, max_norm / (float(norm) + 1e-6))  # torch's own formula
        return norm

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

    # --- the optimizer boundary ---------------------------------------------------------------------------------

    def _before_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._check_open()
        if any(callable(a) for a in (*args[1:], *kwargs.values())):
            raise UsageError(
                f"{type(optimizer).__name__}.step(closure): a closure evaluates several points in one step, so "
                "there is no single gradient to record. Use an optimizer whose step() takes none."
            )
        if self._weighed != self._asked or ("look_back" in self.probes and not self._asked):
            raise UsageError(
                f"step {self.step}: tracer.loss() was called {self._asked} times and backward() reached "
                f"{self._weighed} of its losses before optimizer.step(). "
                "In each step, call loss = tracer.loss(lambda: ...) and loss.backward()."
            )
        slot = self._capture_gradient()
        fill(self._subject.views(slot.flat["x"]), [p.data for p in self._subject.parameters])
        slot.filled.add("x")
        self._put_losses(slot)
        if self._previous_losses:
            fill(self._subject.views(slot.flat["h"]), self._h)
            slot.filled.add("h")
        if self._previous:
            fill(self._previous, [p.data for p in self._subject.parameters])
            self._has_previous = True
        slot.record.update(self._record)

    def _after_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        slot, self._slot = self._slot, None
        if slot is None:
            return
        slot.step = self.step
        slot.record["time_ns"] = time.time_ns()
        numbers = self._subject.numbers()
        slot.record.update({f"hyper:{name}": numbers.get(name) for name in self._numbers})
        self._ring.submit(slot)
        self._forget_step()
        self.step += 1

    def _capture_gradient(self) -> Slot:
        """Copy the gradient into a slot, once per step: before the clip if there is one."""
        if self._slot is None:
            self._slot = self._ring.take()
        if "g" not in self._slot.filled:
            gradients = [p.grad for p in self._subject.parameters]
            missing = [b.name for b, g in zip(self._subject.blocks, gradients, strict=True) if g is None]
            if len(missing) == len(gradients) or (missing and not self._zero_missing):
                raise UsageError(
                    f"step {self.step}: {len(missing)} of {len(gradients)} parameters have no gradient, first "
                    f"{missing[0]!r}. Call backward() before optimizer.step(); if the loss does not depend on them, "
                    "pass missing_gradient='zero'."
                )
            fill(self._subject.views(self._slot.flat["g"]), gradients)
            self._slot.filled.add("g")
        return self._slot

    def _weigh(
        self, weight: torch.Tensor, loss: torch.Tensor, probe: tuple[torch.Tensor, list[torch.Tensor | None]] | None
    ) -> None:
        """backward() has begun: ``weight`` is what it multiplies this loss by (1, one n-th, the loss scale)."""
        weight = weight.detach() if self._scale is None else weight.detach() / self._scale
        self._weighed += 1
        self._losses.append(loss.double() * weight.double())
        if probe is None:
            return
        value, gradient = probe
        add = bool(self._previous_losses)  # a further micro-batch
        fill(self._h, gradient, weight.to(self._subject.dtype), add)
        self._previous_losses.append(value.double() * weight.double())

    def _put_losses(self, slot: Slot) -> None:
        for place, (name, values) in enumerate((("loss", self._losses), ("loss_previous", self._previous_losses))):
            if values:
                total = values[0] if len(values) == 1 else torch.stack(values).sum()
                slot.scalars[place].copy_(total.reshape(()))
                slot.record[name] = None  # its value is in slot.scalars

    def _record_skipped_step(self) -> None:
        """The scaler found an infinite gradient and left out the update: keep point and loss, and no gradient."""
        slot, self._slot = self._slot or self._ring.take(), None
        fill(self._subject.views(slot.flat["x"]), [p.data for p in self._subject.parameters])
        slot.filled = {"x"}
        self._put_losses(slot)
        slot.record.update(self._record, time_ns=time.time_ns(), skipped=True)
        slot.step = self.step
        self._ring.submit(slot)
        self._forget_step()
        self._has_previous = False  # x_{t-1} of the next step is this point, but no gradient belongs to it
        self.step += 1

    def _forget_step(self) -> None:
        self._losses, self._previous_losses, self._record = [], [], {}
        self._asked = self._weighed = 0

    # --- the end ------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError(f"{self.path}: this tracer is closed; make a new one with another run id.")
        self._ring.check()

    def _close(self, reason: str, final_point: bool, error: str | None = None, quiet: bool = False) -> None:
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self._at_exit)
        for hook in self._hooks:
            hook.remove()
        if final_point and self.step and self._ring.error is None:
            slot = self._slot or self._ring.take()
            slot.filled.clear()
            slot.record.clear()
            fill(self._subject.views(slot.flat["x"]), [p.data for p in self._subject.parameters])
            slot.filled.add("x")
            slot.step = self.step
            slot.record["time_ns"] = time.time_ns()
            self._ring.submit(slot)
        self._ring.stop()
        failure = self._ring.error
        if failure is not None:
            reason, error = "recording failed", str(failure)
        try:
            self._writer.close(reason, **({} if error is None else {"error": error}))
        except OSError as problem:
            failure = failure or problem
        if failure is not None and not quiet:
            raise RecordingError(f"recording has stopped: {failure}") from failure

    def _at_exit(self) -> None:
        crashed = getattr(sys, "last_value", None) is not None
        self._close("interpreter exit", final_point=not crashed, quiet=True)


def _known(argument: str, values: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if value not in known:
            raise UsageError(f"{argument}: {value!r} is not known; expected some of {', '.join(map(repr, known))}.")
    return values


def _versions() -> dict[str, str]:
    packages = ("lemmata", "torch", "numpy", "h5py", "pyarrow")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
