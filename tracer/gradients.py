"""The gradient at the optimizer boundary: whole, unscaled, and not changed behind the tracer's back."""

from collections.abc import Sequence
from operator import is_

import torch

from tracer.errors import UsageError
from tracer.probe import dense, fill, wide
from tracer.subject import Subject


class Gradients:
    """Reads ``.grad`` of the trained parameters, and notices who else wrote there.

    Every in-place change of a tensor counts up its ``_version``. The versions at the end of backward() are kept and
    compared before the update. Two changes go unseen: through ``.grad.data``, and ``GradScaler.unscale_``, which is as
    it should be.
    """

    def __init__(self, subject: Subject, zero_missing: bool, accept_changes: bool) -> None:
        self._subject, self._zero_missing, self._accept_changes = subject, zero_missing, accept_changes
        self._seen: list[torch.Tensor | None] = []
        self._versions: list[int] = []

    def after_backward(self) -> None:
        """Called inside backward(): take note once it is over, and after what others do at its end (DDP does)."""
        queue = torch.autograd.Variable._execution_engine.queue_callback
        queue(lambda: queue(self.note))

    def note(self) -> None:
        """The gradients are now what they should be until the update."""
        self._seen = [p.grad for p in self._subject.trained]
        self._versions = _versions(self._seen)

    def forget(self) -> None:
        """The step is over."""
        self._seen = []

    def check(self, step: int) -> None:
        """Raise :class:`UsageError` if a gradient changed since it was noted, or belongs to nothing known."""
        self._subject.check_groups(step)
        if self._accept_changes or not self._seen:
            return
        now = [p.grad for p in self._subject.trained]
        if all(map(is_, now, self._seen)) and _versions(now) == self._versions:
            return
        for name, g, seen, version in zip(self._subject.names, now, self._seen, self._versions, strict=True):
            if g is not seen or (seen is not None and seen._version != version):
                raise UsageError(
                    f"step {step}: the gradient of {name!r} was changed between backward() and optimizer.step(), "
                    "so the gradient of the loss is lost. To clip, call tracer.clip_grad_norm_ or "
                    "tracer.clip_grad_value_; every loss goes through tracer.loss; if the change is part of your "
                    "method and shall be recorded as the gradient, pass changed_gradients='record'."
                )

    def copy_to(self, views: Sequence[torch.Tensor], step: int) -> None:
        """Copy the gradients of the recorded parameters into ``views``, unscaled.

        Raises:
            UsageError: one is missing that should be there.
        """
        gradients = [p.grad for p in self._subject.parameters]
        if any(g is None for g in gradients):
            self._refuse_missing(gradients, step)
        scale = self.scale_left_to_the_optimizer()
        if scale is not None:
            gradients = [None if g is None else wide(dense(g)) / scale.to(g.device) for g in gradients]
        fill(views, gradients)

    def _refuse_missing(self, gradients: Sequence[torch.Tensor | None], step: int) -> None:
        parameters = zip(self._subject.blocks, self._subject.parameters, gradients, strict=True)
        missing = [block.name for block, p, g in parameters if g is None and p.requires_grad]
        nothing = all(p.grad is None for p in self._subject.trained)
        if nothing or (missing and not self._zero_missing):
            raise UsageError(
                f"step {step}: {len(missing)} of {len(gradients)} parameters have no gradient, first "
                f"{next(iter(missing), self._subject.names[0])!r}. Call backward() before optimizer.step(); if the "
                "loss does not depend on them, pass missing_gradient='zero'."
            )

    def scale_left_to_the_optimizer(self) -> torch.Tensor | None:
        """The loss scale still in ``.grad``: a fused optimizer divides it out itself while GradScaler steps it."""
        scale = getattr(self._subject.optimizer, "grad_scale", None)
        return scale if isinstance(scale, torch.Tensor) else None


def _versions(gradients: list[torch.Tensor | None]) -> list[int]:
    return [0 if g is None else g._version for g in gradients]
