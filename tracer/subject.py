"""What is recorded of a model and its optimizer: which tensors, in which order, under which names."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from numbers import Real
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from tracer.errors import UsageError
from tracer.store.manifest import Block

_STORED = {
    torch.float16: torch.float32,  # every bfloat16 and float16 number is a float32 number
    torch.bfloat16: torch.float32,
    torch.float32: torch.float32,
    torch.float64: torch.float64,
}


def inside(model: torch.nn.Module) -> torch.nn.Module:
    """The user's own module, without what torch.compile and DistributedDataParallel wrap around it."""
    while isinstance(model, DistributedDataParallel) or hasattr(model, "_orig_mod"):
        model = model.module if isinstance(model, DistributedDataParallel) else model._orig_mod  # type: ignore[assignment]
    return model


STORES = ("as trained", "float32", "float64")


@dataclass(frozen=True)
class Hyperparameter:
    """One of an optimizer's numbers: its name in the step records, its group and key, where in a tuple it stands.

    Looked up once, because going through all settings in every step takes as long as copying 100,000 numbers.
    """

    name: str
    group: int
    key: str
    path: tuple[int, ...]

    def now(self, groups: Sequence[Mapping[str, Any]]) -> float | None:
        """Its value; None if there is no number any more."""
        value = groups[self.group].get(self.key)
        for i in self.path:
            value = value[i] if isinstance(value, tuple | list) and i < len(value) else None
        return _number(value)


@dataclass(frozen=True)
class Subject:
    """The parameters an optimizer trains, in the order of the model, tied ones once.

    ``trained`` (with ``names``) are all of them, ``parameters`` (with ``blocks``) those that are recorded. ``dtype`` is
    that of the recorded vectors; ``frozen`` counts the model's numbers that the optimizer does not train,
    ``unrecorded`` those it trains and nobody asked for.
    """

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    trained: tuple[torch.nn.Parameter, ...]
    names: tuple[str, ...]
    parameters: tuple[torch.nn.Parameter, ...]
    blocks: tuple[Block, ...]
    dtype: torch.dtype
    frozen: int
    unrecorded: int
    groups: int

    @classmethod
    def of(
        cls,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        patterns: Sequence[str] | None = None,
        with_frozen: bool = False,
        store: str = "as trained",
    ) -> "Subject":
        """Find them.

        Args:
            patterns: of the names to record, as in :mod:`fnmatch`; None records all.
            with_frozen: also the optimizer's parameters that do not require a gradient yet.
            store: one of :data:`STORES`; as trained is the narrowest dtype that holds every parameter exactly.

        Raises:
            UsageError: not a module or optimizer, a trained tensor outside the model, or a dtype not stored.
        """
        if not isinstance(model, torch.nn.Module) or not isinstance(optimizer, torch.optim.Optimizer):
            raise UsageError(
                f"Tracer needs a torch.nn.Module and a torch.optim.Optimizer; found {type(model).__name__} and "
                f"{type(optimizer).__name__}. Call Tracer(run, model, optimizer)."
            )
        wanted = {id(p) for p in _parameters(optimizer) if with_frozen or p.requires_grad}
        named = list(inside(model).named_parameters())
        foreign = len(wanted - {id(p) for _, p in named})
        if foreign:
            raise UsageError(
                f"the optimizer trains {foreign} tensors that are not parameters of the model. "
                "Give Tracer the module that holds all of them."
            )
        trained = [(name, p) for name, p in named if id(p) in wanted]
        recorded = [(name, p) for name, p in trained if _matches(name, patterns)]
        if not sum(p.numel() for _, p in recorded):
            raise UsageError(_nothing(trained, patterns))
        blocks: list[Block] = []
        at = 0
        for name, p in recorded:
            if p.dtype not in _STORED:
                raise UsageError(f"parameter {name!r} is {p.dtype}; lemmata stores real floating-point parameters.")
            blocks.append(Block(name, tuple(p.shape), str(p.dtype).removeprefix("torch."), at, p.numel()))
            at += p.numel()
        return cls(
            model=model,
            optimizer=optimizer,
            trained=tuple(p for _, p in trained),
            names=tuple(name for name, _ in trained),
            parameters=tuple(p for _, p in recorded),
            blocks=tuple(blocks),
            dtype=_dtype(store, [p.dtype for _, p in recorded]),
            frozen=sum(p.numel() for _, p in named if id(p) not in wanted),
            unrecorded=sum(p.numel() for _, p in trained) - at,
            groups=len(optimizer.param_groups),
        )

    def check_groups(self, step: int) -> None:
        """Raise :class:`UsageError` if the optimizer trains something it did not when recording began."""
        groups = self.optimizer.param_groups
        if len(groups) != self.groups:
            raise UsageError(
                f"step {step}: the optimizer has {len(groups)} parameter groups; it had {self.groups} when recording "
                "began. Give it all groups at once and freeze the later ones with requires_grad_(False), which an "
                "optimizer leaves alone; pass frozen='record' to Tracer."
            )
        if all(self._known.issuperset(map(id, group["params"])) for group in groups):
            return
        for p in _parameters(self.optimizer):
            if id(p) not in self._known and p.grad is not None:
                name = next((n for n, q in self.model.named_parameters() if q is p), "a tensor outside the model")
                raise UsageError(
                    f"step {step}: the optimizer now trains {name!r}, which was frozen when recording began. "
                    "Pass frozen='record' to Tracer, so that points include what is unfrozen later."
                )

    @cached_property
    def _known(self) -> frozenset[int]:
        return frozenset(map(id, self.trained))

    def versions(self) -> list[int]:
        """How often each trained parameter was changed in place so far, but for changes through ``.data``."""
        return [p._version for p in self.trained]

    @property
    def recorded_exactly(self) -> bool:
        """Whether all that is trained is recorded, in its own dtype: a recorded point is the whole point."""
        return len(self.parameters) == len(self.trained) and all(p.dtype == self.dtype for p in self.trained)

    def views(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """Parts of a flat tensor of shape ``(d,)``, one per parameter and in its shape."""
        return [flat[b.offset : b.offset + b.size].view(b.shape) for b in self.blocks]

    def hyperparameters(self) -> "tuple[Hyperparameter, ...]":
        """The optimizer's numbers, by name (``group0.lr``, ``group0.betas.0``) and where they stand."""
        return tuple(
            Hyperparameter(".".join(map(str, (f"group{i}.{key}", *path))), i, key, path)
            for i, group in enumerate(self.optimizer.param_groups)
            for key, value in group.items()
            if key != "params"
            for path in _paths(value)
        )

    def state(self, name: str) -> list[torch.Tensor | None]:
        """What the optimizer keeps under ``name`` for each recorded parameter; None where it keeps nothing.

        Raises:
            UsageError: it keeps nothing under that name at all, or something that has not the parameter's shape.
        """
        states = [self.optimizer.state.get(p, {}) for p in self.parameters]
        found = [state.get(name) for state in states]
        shapes = [None if not isinstance(v, torch.Tensor) else v.shape for v in found]
        if not any(shapes) or any(s not in (None, p.shape) for s, p in zip(shapes, self.parameters, strict=True)):
            there = sorted({k for s, p in zip(states, self.parameters, strict=True) for k in _like(p, s)})
            raise UsageError(
                f"optimizer_buffers: {type(self.optimizer).__name__} keeps no {name!r} of the parameters' shape; "
                f"it keeps {', '.join(map(repr, there)) or 'nothing'}."
            )
        return [v if isinstance(v, torch.Tensor) else None for v in found]

    def description(self) -> dict[str, Any]:
        """The optimizer's class and what of its groups is not a number, for the manifest.

        Per group the count of its parameters, the names of its recorded blocks, and its flags and texts.
        """
        names = {id(p): block.name for p, block in zip(self.parameters, self.blocks, strict=True)}
        groups = [
            {
                "parameters": sum(p.numel() for p in group["params"]),
                "blocks": [names[id(p)] for p in group["params"] if id(p) in names],
                **{k: v for k, v in group.items() if isinstance(v, bool | str) or v is None},
            }
            for group in self.optimizer.param_groups
        ]
        kind = type(self.optimizer)
        return {"class": f"{kind.__module__}.{kind.__qualname__}", "groups": groups}


def _paths(value: Any) -> Iterator[tuple[int, ...]]:
    """Where the numbers of a hyperparameter stand in it: ``()`` if it is one."""
    if isinstance(value, tuple | list):
        yield from ((i, *path) for i, item in enumerate(value) for path in _paths(item))
    elif _number(value) is not None:
        yield ()


def _number(value: Any) -> float | None:
    if type(value) is float:
        return value
    if isinstance(value, bool):
        return None
    if isinstance(value, Real) or (isinstance(value, torch.Tensor) and value.numel() == 1):
        return float(value)
    return None


class Views:
    """Views of flat tensors that live as long as a recording, made once for each."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._known: dict[int, tuple[torch.Tensor, list[torch.Tensor]]] = {}

    def __call__(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """As :meth:`Subject.views`; ``flat`` is kept, so that no other tensor gets its identity."""
        if id(flat) not in self._known:
            self._known[id(flat)] = flat, self._subject.views(flat)
        return self._known[id(flat)][1]


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[torch.nn.Parameter]:
    return (p for group in optimizer.param_groups for p in group["params"])


def _matches(name: str, patterns: Sequence[str] | None) -> bool:
    return patterns is None or any(fnmatchcase(name, pattern) for pattern in patterns)


def _nothing(trained: list[tuple[str, torch.nn.Parameter]], patterns: Sequence[str] | None) -> str:
    if not trained:
        return "the optimizer trains no parameter of the model: nothing to record."
    names = ", ".join(name for name, _ in trained[:5])
    return f"blocks={list(patterns or ())!r} matches none of the {len(trained)} trained parameters ({names}, …)."


def _dtype(store: str, found: list[torch.dtype]) -> torch.dtype:
    if store in ("float16", "bfloat16") or isinstance(store, Mapping):
        raise UsageError(
            f"store={store!r}: vectors are not stored that short, nor each in a dtype of its own. Of points, the "
            "squared distance of neighbours would come out wrong by a factor of up to 670; of gradients, the convexity "
            f"gap by up to 3 times itself. Choose one of {', '.join(map(repr, STORES))}; to save space, "
            "record fewer steps or blocks (plan=, blocks=), or archive the run."
        )
    if store not in STORES:
        raise UsageError(f"store={store!r} is not known; expected one of {', '.join(map(repr, STORES))}.")
    if store == "as trained":
        return torch.float64 if torch.float64 in found else torch.float32
    return torch.float32 if store == "float32" else torch.float64


def _like(parameter: torch.nn.Parameter, state: Mapping[str, Any]) -> list[str]:
    return [k for k, v in state.items() if isinstance(v, torch.Tensor) and v.shape == parameter.shape]
