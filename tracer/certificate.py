"""Whether two trainings are the same bit for bit, and where they first are not."""

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from tracer.store.layout import digest

Array = npt.NDArray[Any]
State = Mapping[str, Array]  # everything that training is at one moment, by name


@dataclass(frozen=True)
class Difference:
    """The first place where two trainings differ: after which step, in which tensor, at which element.

    ``tensors`` counts the tensors that differ at that moment. ``step`` is None where only the end was compared.
    """

    step: int | None
    tensor: str
    element: tuple[int, ...]
    first: float | str
    second: float | str
    tensors: int

    def __str__(self) -> str:
        when = "at the end" if self.step is None else f"after step {self.step}"
        index = f"[{', '.join(map(str, self.element))}]" if self.element else ""
        others = f" (and {self.tensors - 1} other tensors)" if self.tensors > 1 else ""
        return f"{when}, {self.tensor}{index}: {self.first!r} against {self.second!r}{others}"


@dataclass(frozen=True)
class Certificate:
    """What ``lemmata certify`` found for one training script.

    ``verdict`` is ``identical``; ``differs`` (the tracer changed training); or ``not repeatable`` (two runs without the
    tracer differ already, so nothing can be said). ``seconds`` are those of the training without and with the tracer.
    """

    verdict: str
    script: str
    seed: int
    steps: int
    tensors: int
    numbers: int
    seconds: tuple[float, float | None]
    difference: Difference | None
    probes: tuple[str, ...] = ()
    time: str = ""

    def as_json(self) -> dict[str, Any]:
        """For the run's manifest."""
        return asdict(self)

    def __str__(self) -> str:
        if self.verdict == "identical":
            without, with_ = self.seconds
            return (
                f"identical: {self.steps} steps; weights, gradients, buffers, optimizer state and random streams, "
                f"{self.numbers} numbers in {self.tensors} tensors; "
                f"{without:.2f} s without the tracer, {with_:.2f} s with it"
            )
        if self.verdict == "not repeatable":
            return (
                f"not repeatable: two trainings without the tracer differ, first {self.difference}. Seed everything "
                "inside train(), and try torch.use_deterministic_algorithms(True); then certify again"
            )
        return f"differs: with the tracer training is another one, first {self.difference}"


def state_of(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Array]:
    """Weights, gradients, buffers, optimizer state and random streams; a copy, by name."""
    state: dict[str, Array] = {}
    names = {id(p): name for name, p in model.named_parameters()}
    for name, p in model.named_parameters():
        state[f"parameter {name}"] = _array(p)
        if p.grad is not None:
            state[f"gradient {name}"] = _array(p.grad)
    for name, b in model.named_buffers():
        state[f"buffer {name}"] = _array(b)
    for i, group in enumerate(optimizer.param_groups):
        for key, value in group.items():
            if key != "params":
                state[f"optimizer group {i} {key}"] = _array(value)
        for j, p in enumerate(group["params"]):
            for key, value in optimizer.state.get(p, {}).items():
                state[f"optimizer {names.get(id(p), f'{i}.{j}')} {key}"] = _array(value)
    return state | _random()


def first_difference(first: State, second: State, step: int | None = None) -> Difference | None:
    """Where two states differ, in the order of their names; None if they are the same bit for bit."""
    unequal = [name for name in {**first, **second} if not _same(first.get(name), second.get(name))]
    if not unequal:
        return None
    a, b = (s.get(unequal[0]) for s in (first, second))
    if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
        return Difference(step, unequal[0], (), _kind(a), _kind(b), len(unequal))
    place = int(np.flatnonzero((_bytes(a) != _bytes(b)).any(axis=1))[0])
    element = tuple(int(i) for i in np.unravel_index(place, a.shape))
    return Difference(step, unequal[0], element, a.flat[place].item(), b.flat[place].item(), len(unequal))


def fingerprint(model: torch.nn.Module) -> int:
    """Hash of parameters, buffers and random streams: cheap enough for every step."""
    tensors = [*model.parameters(), *model.buffers()]
    hashes = [digest(_array(t).tobytes()) for t in tensors] + [digest(a.tobytes()) for a in _random().values()]
    return digest(np.array(hashes, np.uint64).tobytes())


def _random() -> dict[str, Array]:
    _, keys, *rest = cast(tuple[Any, ...], np.random.get_state(legacy=True))
    streams = {
        "random stream of torch": torch.get_rng_state().numpy().copy(),
        "random stream of numpy": np.concatenate([keys, np.array(rest[:1], keys.dtype)]),
        "random stream of python": np.array(random.getstate()[1], np.uint32),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        streams |= {
            f"random stream of cuda:{i}": s.numpy().copy() for i, s in enumerate(torch.cuda.get_rng_state_all())
        }
    return streams


def _array(value: Any) -> Array:
    if not isinstance(value, torch.Tensor):
        return np.array(repr(value)) if not isinstance(value, bool | int | float) else np.array(value)
    tensor = value.detach().cpu()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy().copy()


def _bytes(array: Array) -> Array:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).reshape(array.size, -1)


def _same(a: Array | None, b: Array | None) -> bool:
    return a is not None and b is not None and (a.shape, a.dtype) == (b.shape, b.dtype) and a.tobytes() == b.tobytes()


def _kind(array: Array | None) -> str:
    return "nothing" if array is None else f"{array.dtype} of shape {array.shape}"
