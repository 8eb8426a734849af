"""What a forward pass reads and changes besides the parameters, so that it can be put back exactly."""

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Generator = torch.Generator | np.random.Generator | random.Random


@dataclass(frozen=True)
class Moment:
    """Random streams, buffers, plain attributes, train/eval flags and autocast as they were at one moment."""

    streams: tuple[torch.Tensor, Any, Any]
    cuda: dict[torch.device, torch.Tensor]
    generators: tuple[tuple[Generator, Any], ...]
    modules: tuple[tuple[torch.nn.Module, bool, dict[str, Any], dict[str, Any]], ...]
    values: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    autocast: tuple[tuple[str, bool, torch.dtype], ...]

    def restore(self) -> None:
        """Put all of it back, except autocast, which is a context to enter."""
        for module, training, attributes, buffers in self.modules:
            now = module.__dict__
            for name in now.keys() - attributes.keys():
                del now[name]
            now.update(attributes)
            module.training = training
            module._buffers.update(buffers)
        for tensor, value in self.values:
            tensor.data.copy_(value)  # .data: graphs that saved this tensor do not see a new version
        torch.set_rng_state(self.streams[0])
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
        for module in self.model.modules():
            attributes = dict(module.__dict__)
            modules.append((module, module.training, attributes, dict(module._buffers)))
            for value in (*module._buffers.values(), *attributes.values()):
                if isinstance(value, torch.Tensor) and not value.requires_grad:
                    tensors[id(value)] = value
        return Moment(
            streams=(torch.get_rng_state(), np.random.get_state(), random.getstate()),
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
