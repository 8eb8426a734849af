"""What is recorded of a model and its optimizer: which tensors, in which order, under which names."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch

from tracer.errors import UsageError
from tracer.store.manifest import Block

_STORED = {
    torch.float16: torch.float32,  # every bfloat16 and float16 number is a float32 number
    torch.bfloat16: torch.float32,
    torch.float32: torch.float32,
    torch.float64: torch.float64,
}


@dataclass(frozen=True)
class Subject:
    """The parameters an optimizer trains, in the order of the model, tied ones once.

    ``dtype`` is the narrowest stored dtype that holds every parameter exactly, ``frozen`` the number of the model's
    parameters that the optimizer does not train.
    """

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    parameters: tuple[torch.nn.Parameter, ...]
    blocks: tuple[Block, ...]
    dtype: torch.dtype
    frozen: int

    @classmethod
    def of(cls, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> "Subject":
        """Find them.

        Raises:
            UsageError: not a module or optimizer, a trained tensor outside the model, or a dtype not stored.
        """
        if not isinstance(model, torch.nn.Module) or not isinstance(optimizer, torch.optim.Optimizer):
            raise UsageError(
                f"Tracer needs a torch.nn.Module and a torch.optim.Optimizer; found {type(model).__name__} and "
                f"{type(optimizer).__name__}. Call Tracer(run, model, optimizer)."
            )
        trained = {id(p) for group in optimizer.param_groups for p in group["params"] if p.requires_grad}
        named = {id(p): (name, p) for name, p in reversed(list(model.named_parameters(remove_duplicate=True)))}
        foreign = len(trained - set(named))
        if foreign:
            raise UsageError(
                f"the optimizer trains {foreign} tensors that are not parameters of the model. "
                "Give Tracer the module that holds all of them."
            )
        blocks: list[Block] = []
        parameters: list[torch.nn.Parameter] = []
        at = 0
        for name, p in model.named_parameters():
            if id(p) not in trained:
                continue
            name = name.removeprefix("_orig_mod.")  # what torch.compile puts before every name
            if p.dtype not in _STORED:
                raise UsageError(f"parameter {name!r} is {p.dtype}; lemmata stores real floating-point parameters.")
            blocks.append(Block(name, tuple(p.shape), str(p.dtype).removeprefix("torch."), at, p.numel()))
            parameters.append(p)
            at += p.numel()
        if not at:
            raise UsageError("the optimizer trains no parameter of the model: nothing to record.")
        dtype = torch.float64 if any(p.dtype == torch.float64 for p in parameters) else torch.float32
        frozen = sum(p.numel() for p in model.parameters() if id(p) not in trained)
        return cls(model, optimizer, tuple(parameters), tuple(blocks), dtype, frozen)

    def views(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """Parts of a flat tensor of shape ``(d,)``, one per parameter and in its shape."""
        return [flat[b.offset : b.offset + b.size].view(b.shape) for b in self.blocks]

    def numbers(self) -> dict[str, float | None]:
        """The optimizer's numeric hyperparameters now: ``group0.lr``, ``group0.betas.0`` and so on."""
        found: dict[str, float | None] = {}
        for i, group in enumerate(self.optimizer.param_groups):
            for key, value in group.items():
                for name, number in _numbers(key, value):
                    found[f"group{i}.{name}"] = number
        return found

    def description(self) -> dict[str, Any]:
        """The optimizer's class and what of its groups is not a number: flags and texts, for the manifest."""
        groups = [
            {
                "parameters": sum(p.numel() for p in group["params"]),
                **{k: v for k, v in group.items() if isinstance(v, bool | str) or v is None},
            }
            for group in self.optimizer.param_groups
        ]
        kind = type(self.optimizer)
        return {"class": f"{kind.__module__}.{kind.__qualname__}", "groups": groups}


def _numbers(key: str, value: Any) -> list[tuple[str, float]]:
    if key == "params" or isinstance(value, bool | str | Mapping) or value is None:
        return []
    if isinstance(value, tuple | list):
        return [pair for i, item in enumerate(value) for pair in _numbers(f"{key}.{i}", item)]
    if isinstance(value, Real) or (isinstance(value, torch.Tensor) and value.numel() == 1):
        return [(key, float(value))]
    return []
