"""The minibatch of a step as the loss saw it: its tensors, and what else makes the loss come out the same.

What f(., z_t) is evaluated on is the named tensors, the state of every random stream where the loss draws from one, the
train/eval flags and autocast. Buffers are not kept: a loss that reads one needs it among its tensors.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tracer.dataset import ROWS
from tracer.dataset import check as check_rows
from tracer.errors import UsageError
from tracer.scaling import Scale, unscaled
from tracer.store.minibatch import MAX_DIMENSIONS, STORED, Message, MicroBatch, encode
from tracer.surroundings import Generator, set_state, state_of

Tensors = Mapping[str, torch.Tensor]
Array = npt.NDArray[Any]
States = dict[str, Any]  # name of a random stream to its state

MAX_NAME = 200


@dataclass
class _Taken:
    """One micro-batch; ``tensors`` are on the host or on their way there."""

    tensors: dict[str, torch.Tensor]
    dtypes: dict[str, str]
    training: bool
    exceptions: tuple[str, ...]
    autocast: dict[str, str]
    before: States  # of the random streams; emptied if the loss did not draw
    weight: torch.Tensor | None = None

    def finished(self) -> MicroBatch:
        """With everything on the host."""
        return MicroBatch(
            tensors={name: _bits(t) for name, t in self.tensors.items()},
            dtypes=self.dtypes,
            weight=None if self.weight is None else float(self.weight),
            training=self.training,
            exceptions=self.exceptions,
            autocast=self.autocast,
            random={name: _bytes(state) for name, state in self.before.items()} or None,
        )


@dataclass
class Batches:
    """Keeps the minibatches of the present step, if ``record``; costs nothing otherwise.

    From CUDA, tensors travel to page-locked memory on the current stream; nothing waits for them but the writer thread.
    """

    record: bool
    model: torch.nn.Module
    devices: Sequence[torch.device]
    generators: Sequence[Generator] = ()
    examples: int | None = None  # of the data set that minibatches may be rows of
    _taken: list[_Taken] = field(default_factory=list)
    _asked: _Taken | None = None  # the loss of this one is being evaluated; if that fails, it counts for nothing

    def checked(self, tensors: Tensors | None, rows: torch.Tensor | None = None) -> Tensors | None:
        """What is to be kept: ``tensors``, and ``rows`` under their name.

        Raises:
            UsageError: this recording needs something else.
        """
        if (rows is not None) and self.examples is None:
            raise UsageError("tracer.loss: rows= are those of Tracer(data=...), and no data set was given there.")
        if rows is not None and self.examples is not None:
            check_rows(rows, self.examples)
            if ROWS in (tensors or {}):
                raise UsageError(f"tracer.loss: tensors has the name {ROWS!r}, which is that of rows=. Rename it.")
            tensors = {ROWS: rows, **(tensors or {})}
        if (tensors is not None) != self.record:
            raise UsageError(
                "tracer.loss: tensors={'inputs': inputs, 'targets': targets} and Tracer(..., record_batches=True) go "
                f"together; found tensors={'None' if tensors is None else '...'} and record_batches={self.record}. "
                "Where minibatches are rows of Tracer(data=...), rows=indices stands for tensors."
            )
        for name, t in (tensors or {}).items():
            _check(name, t)
        return tensors

    def take(self, tensors: Tensors | None) -> None:
        """Just before the loss: copy ``tensors``, which :meth:`checked` has seen, and note what else it depends on."""
        if tensors is None:
            return
        modules = [(n.removeprefix("_orig_mod."), m) for n, m in self.model.named_modules()]
        training = self.model.training
        kinds = sorted({"cpu", *(d.type for d in self.devices)})
        self._asked = _Taken(
            tensors={name: _carried(t.detach()) for name, t in tensors.items()},
            dtypes={name: _name(t.dtype) for name, t in tensors.items()},
            training=training,
            exceptions=tuple(n for n, m in modules if m.training != training),
            autocast={k: _name(torch.get_autocast_dtype(k)) for k in kinds if torch.is_autocast_enabled(k)},
            before=self._random(),
        )

    def evaluated(self, loss: torch.Tensor, scale: Scale) -> None:
        """Just after it: did it draw random numbers? ``scale`` is the loss scale, divided out of the weight."""
        taken, self._asked = self._asked, None
        if taken is None:
            return
        after = self._random()
        if all(_same(state, after[name]) for name, state in taken.before.items()):
            taken.before = {}

        def weigh(weight: torch.Tensor) -> None:
            weight = unscaled(weight.detach(), scale)
            taken.weight = _carried(weight.double())

        self._taken.append(taken)
        loss.register_hook(weigh)  # type: ignore[no-untyped-call]

    @property
    def bytes(self) -> int:
        """Of the tensors of the step so far."""
        return sum(t.nbytes for taken in self._taken for t in taken.tensors.values())

    def hand_over(self) -> Callable[[], Message] | None:
        """What gives the message of the step, on any thread, once its tensors have arrived; None if there are none."""
        taken, self._taken = self._taken, []
        if not taken:
            return None
        arrived = [torch.cuda.Event() for d in self.devices if d.type == "cuda"]  # type: ignore[no-untyped-call]
        for event, device in zip(arrived, (d for d in self.devices if d.type == "cuda"), strict=True):
            event.record(torch.cuda.current_stream(device))

        def message() -> Message:
            for event in arrived:
                event.synchronize()
            return encode([t.finished() for t in taken])

        return message

    def forget(self) -> None:
        """The step is over."""
        self._taken, self._asked = [], None

    def _random(self) -> States:
        cuda = {f"torch:{d}": torch.cuda.get_rng_state(d) for d in self.devices if d.type == "cuda"}
        return {
            "torch:cpu": torch.get_rng_state(),
            **cuda,
            "numpy": np.random.get_state(legacy=False),
            "python": random.getstate(),
            **{f"generators.{i}": state_of(g) for i, g in enumerate(self.generators)},
        }


def set_random(states: Mapping[str, Array] | None, generators: Sequence[Generator] = ()) -> None:
    """Put every random stream where it was just before a recorded loss was evaluated; None: that loss drew from none.

    Args:
        states: :attr:`tracer.store.MicroBatch.random`.
        generators: those that were given to ``Tracer(generators=...)``, in that order.
    """
    for name, found in (states or {}).items():
        raw = np.array(found)
        if name == "torch:cpu":
            torch.set_rng_state(torch.from_numpy(raw))
        elif name.startswith("torch:"):
            torch.cuda.set_rng_state(torch.from_numpy(raw), name.removeprefix("torch:"))
        elif name == "numpy":
            np.random.set_state(json.loads(raw.tobytes()))
        elif name == "python":
            random.setstate(_python_state(raw))
        else:
            generator = generators[int(name.removeprefix("generators."))]
            if isinstance(generator, torch.Generator):
                set_state(generator, torch.from_numpy(raw))
            elif isinstance(generator, random.Random):
                set_state(generator, _python_state(raw))
            else:
                set_state(generator, json.loads(raw.tobytes()))


def _check(name: object, tensor: object) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
        raise UsageError(f"tracer.loss: tensors has the name {name!r:.80}; expected 1 to {MAX_NAME} characters.")
    if not isinstance(tensor, torch.Tensor):
        raise UsageError(
            f"tracer.loss: tensors[{name!r}] is a {type(tensor).__name__}; expected a tensor, so pass "
            f"torch.as_tensor(...), and containers as one tensor each."
        )
    if tensor.layout is not torch.strided or _name(tensor.dtype) not in STORED or tensor.dim() > MAX_DIMENSIONS:
        raise UsageError(
            f"tracer.loss: tensors[{name!r}] is {tensor.dtype}, {tensor.layout}, of {tensor.dim()} dimensions; stored "
            f"are dense tensors of up to {MAX_DIMENSIONS} dimensions of dtype {', '.join(STORED)}. Convert it."
        )


def _carried(tensor: torch.Tensor) -> torch.Tensor:
    """A copy on the host; from CUDA it may still be on its way."""
    tensor = tensor.resolve_conj().resolve_neg()
    if tensor.device.type != "cuda":
        return tensor.to("cpu", copy=True, memory_format=torch.contiguous_format)
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


def _bits(tensor: torch.Tensor) -> Array:
    """As numpy holds it; what it does not know, as unsigned integers of the same bits."""
    stored = STORED[_name(tensor.dtype)]
    if stored.name != _name(tensor.dtype):
        tensor = tensor.contiguous().view(getattr(torch, stored.name))
    return tensor.numpy()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _bytes(state: Any) -> Array:
    """A random stream's state as bytes: torch's own, any other as JSON."""
    if isinstance(state, torch.Tensor):
        return state.numpy()
    return np.frombuffer(json.dumps(state, default=lambda part: part.tolist()).encode(), np.uint8)


def _python_state(raw: Array) -> tuple[Any, ...]:
    version, numbers, gauss = json.loads(raw.tobytes())
    return version, tuple(numbers), gauss


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return all(_same(value, b[key]) for key, value in a.items())
    return bool(np.array_equal(a, b)) if isinstance(a, np.ndarray) else bool(a == b)
