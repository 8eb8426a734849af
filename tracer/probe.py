"""Asking the loss once more, elsewhere, as if nobody had asked: everything but the answer comes back as it was."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import CellType, FunctionType
from typing import NamedTuple

import torch

from tracer.scaling import Scale, unscaled
from tracer.surroundings import Moment, Surroundings

Closure = Callable[[], torch.Tensor]
Answer = tuple[torch.Tensor, list[torch.Tensor | None]]  # a loss, and one gradient per parameter


class Move(NamedTuple):
    """To another point: ``tensors`` to overwrite, the ``values`` they get, room for their own; pairwise of one shape.

    Who asks in every step keeps the ``room``, because a large tensor made anew costs more than the copy into it.
    """

    tensors: Sequence[torch.Tensor]
    values: Sequence[torch.Tensor]
    room: Sequence[torch.Tensor] | None = None


def ask(
    closure: Closure,
    parameters: Sequence[torch.Tensor],
    surroundings: Surroundings,
    *,
    at: Move | None = None,
    as_of: Moment | None = None,
    scale: Scale = 1.0,
) -> Answer:
    """Loss and gradient of ``closure``; afterwards parameters and surroundings are as they were.

    The gradient is taken with ``torch.autograd.grad``, which neither touches ``.grad`` nor runs the hooks that
    accumulate into it. Parameters are overwritten and restored in place, so no address and no version changes.

    Args:
        parameters: with respect to which the gradient is taken.
        at: what to move and where to; None asks where the parameters are.
        as_of: evaluate with these random numbers, buffers, flags and this autocast state; None takes the present ones.
        scale: multiplies the loss during the backward pass and is divided out of the gradient (mixed precision).

    Returns:
        the loss, a scalar tensor, and one gradient per parameter (None where the loss does not depend on it).
    """
    with surroundings.kept(), _moved(at), _autocast(as_of), torch.enable_grad():
        if as_of is not None:
            as_of.restore()
        loss = closure()
        wanted = [p for p in parameters if p.requires_grad]
        unit = isinstance(scale, float) and scale == 1.0
        scaled = loss if unit else loss * (scale.to(loss.device) if isinstance(scale, torch.Tensor) else scale)
        found = iter(torch.autograd.grad(scaled, wanted, allow_unused=True))
        gradients = [next(found) if p.requires_grad else None for p in parameters]
        return loss.detach(), [g if g is None or unit else unscaled(wide(g), scale) for g in gradients]


def frozen(closure: Closure) -> Closure:
    """A function that does what ``closure`` does now, also after the variables it refers to are bound anew.

    A loop that writes ``tracer.loss(lambda: loss_of(inputs))`` binds ``inputs`` to the next minibatch while the probe
    at x_{t+1} still needs this one. And what a probe assigns to such a variable stays in the copy.
    """
    if not isinstance(closure, FunctionType) or hasattr(closure, "_torchdynamo_orig_callable"):
        return closure
    cells = tuple(_copy(cell) for cell in closure.__closure__ or ())
    copy = FunctionType(closure.__code__, dict(closure.__globals__), closure.__name__, closure.__defaults__, cells)
    copy.__kwdefaults__ = closure.__kwdefaults__
    copy.__dict__.update(closure.__dict__)
    return copy


def dense(gradient: torch.Tensor) -> torch.Tensor:
    """``gradient`` with its zeros spelt out, if it is sparse."""
    return gradient.to_dense() if gradient.layout is not torch.strided else gradient


def wide(gradient: torch.Tensor) -> torch.Tensor:
    """``gradient`` in at least float32, so that a loss scale can be divided out of it without underflow."""
    return gradient.float() if gradient.dtype in (torch.float16, torch.bfloat16) else gradient


def fill(
    views: Sequence[torch.Tensor],
    tensors: Sequence[torch.Tensor | None],
    scale: torch.Tensor | None = None,
    add: bool = False,
) -> None:
    """Copy ``tensors`` (None is zero), times ``scale``, into ``views``; or add them to what is there."""
    if add:
        for view, t in zip(views, tensors, strict=True):
            if t is not None:
                view.add_(dense(t) if scale is None else dense(t) * scale)
        return
    filled, there = list(views), [dense(t) for t in tensors if t is not None]
    if len(there) < len(filled):
        torch._foreach_zero_([v for v, t in zip(views, tensors, strict=True) if t is None])
        filled = [v for v, t in zip(views, tensors, strict=True) if t is not None]
    if there:
        torch._foreach_copy_(filled, there)
    if scale is not None:
        torch._foreach_mul_(list(views), scale)


@contextmanager
def _moved(at: Move | None) -> Iterator[None]:
    if at is None:
        yield
        return
    tensors = [tensor.data for tensor in at.tensors]
    here = [torch.empty_like(tensor) for tensor in tensors] if at.room is None else list(at.room)
    torch._foreach_copy_(here, tensors)
    try:
        torch._foreach_copy_(tensors, list(at.values))
        yield
    finally:
        torch._foreach_copy_(tensors, here)


@contextmanager
def _autocast(as_of: Moment | None) -> Iterator[None]:
    """The autocast state of a moment, and no trace in the cache of an autocast region around us.

    Autocast keeps the low-precision copy of each weight until its outermost region ends. Inside such a region a probe
    at another point would leave its copies to training, or take training's; so there it goes without the cache.
    """
    inside = torch.autocast_increment_nesting() > 1
    torch.autocast_decrement_nesting()
    enabled = torch.is_autocast_cache_enabled()
    cache = enabled and not inside
    with ExitStack() as stack:
        stack.callback(torch.set_autocast_cache_enabled, enabled)
        torch.set_autocast_cache_enabled(cache)
        for kind, on, dtype in () if as_of is None else as_of.autocast:
            if on != torch.is_autocast_enabled(kind) or dtype != torch.get_autocast_dtype(kind):
                stack.enter_context(torch.autocast(kind, dtype=dtype, enabled=on, cache_enabled=cache))
        yield


def _copy(cell: CellType) -> CellType:
    try:
        return CellType(cell.cell_contents)
    except ValueError:  # not bound yet
        return cell
