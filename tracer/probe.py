"""Asking the loss at another point, as if nobody had asked: RNG, buffers, flags, ``.grad`` and parameters come back."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

Closure = Callable[[], torch.Tensor]


@contextmanager
def undisturbed(model: torch.nn.Module, devices: Sequence[torch.device]) -> Iterator[None]:
    """Put back, on leaving, everything a forward pass may change besides the parameters.

    That is: the random streams of torch (CPU and ``devices``), numpy and Python; every buffer's value, and which tensor
    is registered as that buffer; the train/eval flag of every module.
    """
    streams = (torch.get_rng_state(), np.random.get_state(), random.getstate())
    cuda = {d: torch.cuda.get_rng_state(d) for d in devices if d.type == "cuda"}
    owners = [(module._buffers, dict(module._buffers)) for module in model.modules() if module._buffers]
    values = [(b, b.detach().clone()) for _, buffers in owners for b in buffers.values() if b is not None]
    flags = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training
        for registry, buffers in owners:
            registry.update(buffers)
        for buffer, value in values:
            buffer.data.copy_(value)  # .data: graphs that saved this buffer do not see a new version
        torch.set_rng_state(streams[0])
        np.random.set_state(streams[1])
        random.setstate(streams[2])
        for device, state in cuda.items():
            torch.cuda.set_rng_state(state, device)


def ask(
    closure: Closure,
    parameters: Sequence[torch.Tensor],
    point: Sequence[torch.Tensor],
    model: torch.nn.Module,
    scale: float = 1.0,
) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
    """Loss and gradient of ``closure`` with the parameters at ``point``; afterwards all is as it was.

    The gradient is taken with ``torch.autograd.grad``, which neither touches ``.grad`` nor runs the hooks that
    accumulate into it. Parameters are overwritten and restored in place, so no address and no version changes.

    Args:
        parameters, point: tensors of equal shapes, in the same order.
        scale: multiplies the loss during the backward pass and is divided out of the gradient (mixed precision).

    Returns:
        the loss, a scalar tensor, and one gradient per parameter (None where the loss does not depend on it).
    """
    devices = sorted({p.device for p in parameters}, key=str)
    values = [p.data for p in parameters]
    here = [v.clone() for v in values]
    with undisturbed(model, devices):
        try:
            torch._foreach_copy_(values, list(point))
            with torch.enable_grad():
                loss = closure()
                wanted = [p for p in parameters if p.requires_grad]
                scaled = loss if scale == 1.0 else loss * scale
                found = iter(torch.autograd.grad(scaled, wanted, allow_unused=True))
            gradients = [next(found) if p.requires_grad else None for p in parameters]
            if scale != 1.0:
                gradients = [None if g is None else g.to(torch.float32) / scale for g in gradients]
            return loss.detach(), gradients
        finally:
            torch._foreach_copy_(values, here)


def dense(gradient: torch.Tensor) -> torch.Tensor:
    """``gradient`` with its zeros spelt out, if it is sparse."""
    return gradient.to_dense() if gradient.layout is not torch.strided else gradient


def fill(
    views: Sequence[torch.Tensor], tensors: Sequence[Any], scale: torch.Tensor | None = None, add: bool = False
) -> None:
    """Copy ``tensors`` (None is zero), times ``scale``, into ``views``; or add them to what is there."""
    if add:
        for view, t in zip(views, tensors, strict=True):
            if t is not None:
                view.add_(dense(t) if scale is None else dense(t) * scale)
        return
    pairs = [(view, dense(t)) for view, t in zip(views, tensors, strict=True) if t is not None]
    if len(pairs) < len(views):
        torch._foreach_zero_([v for v, t in zip(views, tensors, strict=True) if t is None])
    if pairs:
        torch._foreach_copy_([v for v, _ in pairs], [t for _, t in pairs])
    if scale is not None:
        torch._foreach_mul_(list(views), scale)
