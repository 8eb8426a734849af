"""Clipping through the tracer takes the limit alone: which gradients there are, the tracer knows."""

from collections.abc import Callable
from functools import wraps
from numbers import Real
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch

from tracer.errors import UsageError

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def limit_alone(clip: Callable[Concatenate[T, P], R]) -> Callable[Concatenate[T, P], R]:
    """A method that answers a call with torch's arguments, which has the parameters first, by an error that says so."""

    @wraps(clip)
    def checked(self: T, /, *args: P.args, **kwargs: P.kwargs) -> R:
        first: Any = args[0] if args else 0.0
        number = isinstance(first, Real) or (isinstance(first, torch.Tensor) and not first.dim())
        if not number or "parameters" in kwargs:
            found = type(first).__name__ if not number else "parameters="
            limit = "max_norm" if clip.__name__ == "clip_grad_norm_" else "clip_value"
            raise UsageError(
                f"tracer.{clip.__name__}: expected the limit alone ({limit}), for the tracer clips what it records; "
                f"found {found} where the function of torch takes the parameters. Call tracer.{clip.__name__}({limit})."
            )
        return clip(self, *args, **kwargs)

    return checked
