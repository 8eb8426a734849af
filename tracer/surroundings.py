"""What a forward pass reads and changes besides the parameters, so that it can be put back exactly."""

import ctypes
import random
from collections import OrderedDict
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import is_
from typing import Any

import numpy as np
import torch

Generator = torch.Generator | np.random.Generator | random.Random

# most attributes of a module are of these types, and to ask torch whether each is a tensor takes longer than the rest
_PLAIN = frozenset({type(None), bool, int, float, str, tuple, list, set, dict, OrderedDict})


@dataclass(frozen=True)
class Moment:
    """Random streams, buffers, plain attributes, train/eval flags and autocast as they were at one moment."""

    streams: tuple[torch.Tensor, Any, Any]
    words: bytes | None  # of numpy's generator: see _words
    cuda: dict[torch.device, torch.Tensor]
    generators: tuple[tuple[Generator, Any], ...]
    modules: tuple[tuple[torch.nn.Module, bool, dict[str, Any], dict[str, Any]], ...]
    values: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    autocast: tuple[tuple[str, bool, torch.dtype], ...]

    def restore(self) -> None:
        """Put all of it back, except autocast, which is a context to enter."""
        for module, training, attributes, buffers in self.modules:
            _put_back(module.__dict__, attributes)
            _put_back(module._buffers, buffers)
            if module.training is not training:  # a scripted module keeps the flag elsewhere
                module.training = training
        for tensor, value in self.values:
            tensor.data.copy_(value)  # .data: graphs that saved this tensor do not see a new version
        torch.set_rng_state(self.streams[0])
        if self.words is None or self.words != _words():
            np.random.set_state(self.streams[1])
        random.setstate(self.streams[2])
        for device, state in self.cuda.items():
            torch.cuda.set_rng_state(state, device)
        for generator, state in self.generators:
            set_state(generator, state)


class Surroundings:
    """Everything besides the parameters that evaluating a model may read or change.

    That is: the random streams of torch (CPU, and CUDA where parameters are), numpy and Python, and the ``generators``
    given; every buffer's value and which tensor is registered as that buffer; every plain attribute of every module (a
    counter, a cache), tensors among them by value; the train/eval flags. Python objects that are changed in place are
    beyond it: a list a module appends to, a data loader a closure draws from.
    """

    def __init__(
        self, model: torch.nn.Module, parameters: Iterable[torch.Tensor], generators: Sequence[Generator] = ()
    ) -> None:
        self.model = model
        self.generators = tuple(generators)
        self.devices = sorted({p.device for p in parameters}, key=str)
        self._kinds = sorted({"cpu", *(d.type for d in self.devices)})

    def now(self) -> Moment:
        """What is, to be restored later; tensors are copied."""
        modules, tensors = [], {}
        for module in _modules(self.model):
            attributes, buffers = module.__dict__.copy(), dict(module._buffers)
            modules.append((module, module.training, attributes, buffers))
            held = [v for v in (*buffers.values(), *attributes.values()) if type(v) not in _PLAIN]
            tensors.update({id(v): v for v in held if isinstance(v, torch.Tensor) and not v.requires_grad})
        numpy_state = np.random.get_state(legacy=False)
        one_kept = numpy_state["has_gauss"]  # normal numbers are made in twos; the second is not among the words
        return Moment(
            streams=(torch.get_rng_state(), numpy_state, random.getstate()),
            words=None if one_kept else _words(),
            cuda={d: torch.cuda.get_rng_state(d) for d in self.devices if d.type == "cuda"},
            generators=tuple((g, state_of(g)) for g in self.generators),
            modules=tuple(modules),
            values=tuple((t, t.detach().clone()) for t in tensors.values()),
            autocast=tuple((k, torch.is_autocast_enabled(k), torch.get_autocast_dtype(k)) for k in self._kinds),
        )

    @contextmanager
    def kept(self) -> Iterator[None]:
        """On leaving, all is as it was on entering."""
        moment = self.now()
        try:
            yield
        finally:
            moment.restore()


def _modules(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The modules of ``model``, as ``model.modules()`` finds them, in a fraction of its time."""
    found: dict[int, torch.nn.Module] = {}
    waiting = [model]
    while waiting:
        module = waiting.pop()
        if id(module) not in found:
            found[id(module)] = module
            waiting += [m for m in module._modules.values() if m is not None]
    return list(found.values())


def _put_back(now: MutableMapping[str, Any], before: dict[str, Any]) -> None:
    """Make ``now`` hold what ``before`` holds; most often it still does."""
    if now.keys() == before.keys() and all(map(is_, now.values(), before.values())):
        return
    for name in set(now.keys()) - before.keys():
        del now[name]
    for name, value in before.items():  # not update(), which scripted modules lack
        now[name] = value


def _words() -> bytes | None:
    """The state of numpy's global generator as it stands in memory: reading it so takes 1 µs, setting it 60.

    None if it is no Mersenne twister, whose state is 624 words and a position.
    """
    generator = np.random.get_bit_generator()  # type: ignore[attr-defined]
    if type(generator) is not np.random.MT19937:
        return None
    return ctypes.string_at(generator.ctypes.state_address, 625 * 4)


def state_of(generator: Generator) -> Any:
    """The state of a generator of torch (a byte tensor), numpy (a dictionary) or Python (a tuple)."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    return generator.getstate() if isinstance(generator, random.Random) else generator.bit_generator.state


def set_state(generator: Generator, state: Any) -> None:
    """Put a generator into a state that :func:`state_of` gave."""
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.bit_generator.state = state
