"""The tracer that is not there: the same calls, nothing recorded."""

import os
from types import TracebackType
from typing import Any, Self

import torch

from tracer.clipping import limit_alone
from tracer.probe import Closure


class Untraced:
    """Stands where a :class:`tracer.Tracer` would and leaves training to itself: for switching recording off.

    Takes the same arguments and answers the same calls; clipping clips, a loss is evaluated, nothing else happens.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with Untraced("run", model, optimizer, probes=["look_back"]) as tracer:
        ...     loss = tracer.loss(lambda: model(torch.ones(4, 2)).square().mean(), batch=0)
        >>> loss.requires_grad
        True
    """

    path = None
    acknowledged = None
    probes = ()

    def __init__(
        self, run: str | os.PathLike[str], model: torch.nn.Module, optimizer: torch.optim.Optimizer, **options: Any
    ) -> None:
        self.step = 0
        self._model, self._optimizer = model, optimizer
        self._hook = optimizer.register_step_post_hook(self._count)

    def loss(self, closure: Closure, **given: Any) -> torch.Tensor:
        """``closure()``."""
        return closure()

    @limit_alone
    def clip_grad_norm_(
        self, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
    ) -> torch.Tensor:
        """``torch.nn.utils.clip_grad_norm_`` over the optimizer's parameters."""
        return torch.nn.utils.clip_grad_norm_(self._parameters(), max_norm, norm_type, error_if_nonfinite)

    @limit_alone
    def clip_grad_value_(self, clip_value: float) -> None:
        """``torch.nn.utils.clip_grad_value_`` over the optimizer's parameters."""
        torch.nn.utils.clip_grad_value_(self._parameters(), clip_value)

    def flush(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Stop counting steps."""
        self._hook.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _count(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.step += 1

    def _parameters(self) -> list[torch.nn.Parameter]:
        trained = {id(p) for group in self._optimizer.param_groups for p in group["params"]}
        return [p for p in self._model.parameters() if id(p) in trained]  # in this order, for the norm's last bit
