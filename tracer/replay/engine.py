"""The recorded loss, evaluated again: any point, any recorded minibatch, as training evaluated it.

A micro-batch brings its tensors, its weight, the random numbers its loss drew, train/eval flags and autocast. Buffers
are put back before each evaluation, so that what is asked first does not change what is asked next.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tracer.batches import set_random
from tracer.dataset import ROWS, chosen, require
from tracer.errors import UsageError
from tracer.losses import differentiable
from tracer.probe import dense
from tracer.replay.workload import Batch, Loaded
from tracer.store.manifest import Block, Manifest
from tracer.store.minibatch import MicroBatch
from tracer.subject import inside
from tracer.surroundings import Surroundings

Array = npt.NDArray[Any]
SEED = 0  # of what the model or the loss of the whole data set draws
LOW = ("float16", "bfloat16")


@dataclass(frozen=True)
class Micro:
    """A micro-batch whose tensors are on the device."""

    tensors: Batch
    weight: float
    modes: MicroBatch


@dataclass(frozen=True)
class Answer:
    """A loss, and its gradient where one was asked for: shape ``(d,)``, in the dtype of the trace, on the device."""

    loss: float
    gradient: torch.Tensor | None


class Engine:
    """A model that stands where it is told, and the loss there.

    Args:
        loaded: the workload.
        manifest: of the run; all trained parameters must have been recorded.
        device: where to compute.

    Raises:
        UsageError: the model that the workload builds is not the one that was recorded, or its data set is not.
    """

    def __init__(self, loaded: Loaded, manifest: Manifest, device: torch.device) -> None:
        self._loaded, self.blocks, self.device = loaded, manifest.blocks, device
        self._data = None if manifest.data is None else require(loaded.data(), manifest.data, loaded.path)
        self.size = manifest.parameters
        torch.manual_seed(SEED)
        model = loaded.workload.build()
        if not isinstance(model, torch.nn.Module):
            raise UsageError(f"{loaded.path}: build() gave a {type(model).__name__}; expected a torch.nn.Module.")
        self.model = model.to(device)
        self._inside = inside(self.model)
        self._generators = tuple(getattr(loaded.workload, "generators", ()))
        self.parameters = _parameters(self._inside, manifest, loaded.path)
        self._modules = [(name.removeprefix("_orig_mod."), m) for name, m in self.model.named_modules()]
        self._flags = [m.training for _, m in self._modules]
        self._mode: tuple[bool, tuple[str, ...]] | None = None
        self._stand_in(getattr(torch, manifest.dtype))

    def _stand_in(self, dtype: torch.dtype) -> None:
        """Take the model's tensors as they are now; points and gradients are of ``dtype``."""
        self.dtype = dtype
        self._values = [p.data for p in self.parameters]
        self._low = any(str(value.dtype).removeprefix("torch.") in LOW for value in self._values)
        self._flat_point = torch.empty(self.size, dtype=dtype, device=self.device)
        self._point = self.views(self._flat_point)
        self._buffers = list(self.model.buffers())
        self._kept = [buffer.clone() for buffer in self._buffers]
        self._begin: tuple[float, torch.Tensor] | None = None  # a weight, and what backward() begins with

    def place(self, point: Array | torch.Tensor) -> None:
        """Put the model at a point, shape ``(d,)``.

        Raises:
            UsageError: parameters are float16 or bfloat16, and the point is none of theirs.
        """
        self._flat_point.copy_(self.tensor(point))
        torch._foreach_copy_(self._values, self._point)
        if self._low and not all(
            torch.equal(v.to(p.dtype).to(v.dtype), v) for v, p in zip(self._point, self._values, strict=True)
        ):
            raise UsageError(
                "parameters of this model are float16 or bfloat16, and a point between recorded ones is none that it "
                "can stand at. Ask for recorded points: references last, initial, best_loss, epoch_last."
            )

    def tensor(self, vector: Array | torch.Tensor) -> torch.Tensor:
        """A vector in the dtype of the trace, on the device."""
        if isinstance(vector, np.ndarray):
            vector = torch.from_numpy(vector if vector.flags.writeable else vector.copy())
        return vector.to(self.device, self.dtype)

    def views(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """Parts of a flat tensor, one per block and in its shape."""
        return [flat[b.offset : b.offset + b.size].view(b.shape) for b in self.blocks]

    def minibatch(self, batches: Sequence[MicroBatch]) -> list[Micro]:
        """A recorded minibatch on the device; empty where it cannot be asked: a weight is not known."""
        if any(each.weight is None for each in batches):
            return []
        return [Micro(self._tensors(b), float(b.weight or 0.0), b) for b in batches]

    def ask(
        self,
        minibatch: Sequence[Micro],
        gradient: bool = False,
        only: int | None = None,
        into: torch.Tensor | None = None,
    ) -> Answer:
        """Loss, and gradient (of one block where ``only`` says so), of a recorded minibatch where the model stands.

        Args:
            into: where the gradient is written, in the dtype of the trace; a tensor of its own unless given.
        """
        total, wanted = 0.0, self.parameters if only is None else [self.parameters[only]]
        grads: list[torch.Tensor | None] | None = None
        for micro in minibatch:
            with self._as_recorded(micro.modes, gradient):
                loss = self._loaded.workload.loss(self.model, micro.tensors)
            total += loss.item() * micro.weight
            if gradient:  # outside autocast, as backward() is
                found = self._gradient(differentiable(loss), wanted, micro.weight)
                grads = found if grads is None else [_sum(a, b) for a, b in zip(grads, found, strict=True)]
        return Answer(total, self._flat(grads or [None] * len(wanted), wanted, into) if gradient else None)

    def whole(self, gradient: bool = False) -> Answer:
        """The same of F, the mean over the workload's whole data set, with the flags the model was built with.

        Raises:
            UsageError: the workload has no ``full_data``.
        """
        total, count = 0.0, 0
        summed = torch.zeros(self.size, dtype=torch.float64, device=self.device) if gradient else None
        for batch in self.full_data():
            with self._as_built(), torch.set_grad_enabled(gradient):
                loss = self._loaded.workload.loss(self.model, batch)
            size = weight_of(batch)
            total, count = total + loss.item() * size, count + size
            if summed is not None:
                found = self._gradient(differentiable(loss), self.parameters, 1.0)
                summed.add_(self._flat(found, self.parameters), alpha=size)
        return Answer(total / count, None if summed is None else summed / count)

    def hessian(self, minibatch: Sequence[Micro] | None) -> Callable[[torch.Tensor], torch.Tensor]:
        """v → H v where the model stands, of a recorded minibatch, or of F where there is none.

        Of a single batch the graph is kept from product to product; of several it is made anew, one at a time.
        """
        kept = len(minibatch) == 1 if minibatch is not None else self.batch_count() == 1
        graphs = list(self._graphs(minibatch)) if kept else None

        def product(v: torch.Tensor) -> torch.Tensor:
            out = torch.zeros(self.size, dtype=self.dtype, device=self.device)
            total = 0.0
            for weight, share, grads in graphs or self._graphs(minibatch):
                total += share
                out.add_(self._hessian_of(grads, v), alpha=weight)
            return out / total if minibatch is None else out

        return product

    def has_full_data(self) -> bool:
        """Whether F can be asked."""
        return self._loaded.full_data() is not None

    def batch_count(self) -> int:
        """How many parts the whole data set has."""
        return sum(1 for _ in self.full_data())

    def full_data(self) -> Iterator[dict[str, torch.Tensor]]:
        """The whole data set, part by part, on the device."""
        found = self._loaded.full_data()
        if found is None:
            raise UsageError(
                f"{self._loaded.path}: has no full_data(), so the loss of the whole data set is not known."
            )
        for batch in found:
            yield {name: tensor.to(self.device) for name, tensor in batch.items()}

    # --- as it was ------------------------------------------------------------------------------------------------

    def _as_recorded(self, modes: MicroBatch, gradient: bool) -> AbstractContextManager[Any]:
        """Flags, buffers and random numbers are put back at once; autocast and gradients are a context to enter."""
        if (modes.training, modes.exceptions) != self._mode:
            for name, module in self._modules:
                module.training = modes.training != (name in modes.exceptions)
            self._mode = (modes.training, modes.exceptions)
        self._restore_buffers()
        if modes.random:
            _refuse_foreign(modes.random, self.device)
            set_random(modes.random, self._generators)
        graph = torch.set_grad_enabled(gradient)
        if not modes.autocast:
            return graph
        stack = ExitStack()
        stack.enter_context(graph)
        for kind, dtype in modes.autocast.items():
            where = self.device.type if kind == "cuda" else kind
            stack.enter_context(torch.autocast(where, dtype=getattr(torch, dtype)))
        return stack

    @contextmanager
    def _as_built(self) -> Iterator[None]:
        if self._mode is not None:
            for (_, module), training in zip(self._modules, self._flags, strict=True):
                module.training = training
            self._mode = None
        torch.manual_seed(SEED)
        self._restore_buffers()
        yield

    def _restore_buffers(self) -> None:
        """Before a forward pass, not after it: the backward pass may still read what the forward pass left there."""
        for buffer, value in zip(self._buffers, self._kept, strict=True):
            buffer.data.copy_(value)

    # --- tensors --------------------------------------------------------------------------------------------------

    def _tensors(self, batch: MicroBatch) -> dict[str, torch.Tensor]:
        """By name; where it was recorded as rows, those of the data set."""
        found = {name: self._loaded_tensor(batch, name) for name in batch.tensors}
        if self._data is None or ROWS not in found:
            return found
        taken = chosen(self._data, found.pop(ROWS).to("cpu"))
        return {**{name: tensor.to(self.device) for name, tensor in taken.items()}, **found}

    def _loaded_tensor(self, batch: MicroBatch, name: str) -> torch.Tensor:
        tensor = torch.from_numpy(batch.tensors[name].copy())  # the file's bytes are not to be written to
        dtype: torch.dtype = getattr(torch, batch.dtypes[name])
        tensor = tensor if tensor.dtype == dtype else tensor.view(dtype)
        return tensor if self.device.type == "cpu" else tensor.to(self.device)

    def _flat(
        self,
        grads: Sequence[torch.Tensor | None],
        wanted: Sequence[torch.Tensor],
        into: torch.Tensor | None = None,
    ) -> torch.Tensor:
        parts = [torch.zeros_like(p) if g is None else dense(g) for g, p in zip(grads, wanted, strict=True)]
        flat = [(part if part.dtype == self.dtype else part.to(self.dtype)).reshape(-1) for part in parts]
        return torch.cat(flat) if into is None else torch.cat(flat, out=into)

    def _gradient(self, loss: torch.Tensor, wanted: Sequence[torch.Tensor], weight: float) -> list[torch.Tensor | None]:
        """As backward() computed it: it began with the weight, so that every bit is the same."""
        if weight == 1:
            return list(torch.autograd.grad(loss, wanted, allow_unused=True))
        begin = self._begin
        if begin is None or begin[0] != weight or begin[1].dtype != loss.dtype or begin[1].shape != loss.shape:
            begin = self._begin = (weight, torch.full_like(loss, weight))
        return list(torch.autograd.grad(loss, wanted, begin[1], allow_unused=True))

    def _graphs(self, minibatch: Sequence[Micro] | None) -> Iterator[tuple[float, float, list[torch.Tensor | None]]]:
        """Per batch its weight, its share of F, and a gradient that can be differentiated."""
        if minibatch is not None:
            for micro in minibatch:
                with self._as_recorded(micro.modes, gradient=True):
                    loss = self._twice_differentiable(micro.tensors)
                yield micro.weight, 0.0, self._graph(loss)
        else:
            for batch in self.full_data():
                with self._as_built():
                    loss = self._twice_differentiable(batch)
                yield weight_of(batch), weight_of(batch), self._graph(loss)

    def _twice_differentiable(self, batch: Batch) -> torch.Tensor:
        # fused attention has no second derivative; its plain form has
        with torch.enable_grad(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return differentiable(self._loaded.workload.loss(self.model, batch))

    def _graph(self, loss: torch.Tensor) -> list[torch.Tensor | None]:
        return list(torch.autograd.grad(loss, self.parameters, create_graph=True, allow_unused=True))

    def _hessian_of(self, grads: Sequence[torch.Tensor | None], v: torch.Tensor) -> torch.Tensor:
        pairs = [(g, part) for g, part in zip(grads, self.views(v), strict=True) if g is not None and g.requires_grad]
        if not pairs:
            return torch.zeros_like(v)  # a linear loss
        outer, inner = zip(*pairs, strict=True)
        directions = [part.to(g.dtype) for g, part in zip(outer, inner, strict=True)]
        found = torch.autograd.grad(outer, self.parameters, directions, retain_graph=True, allow_unused=True)
        return self._flat(found, self.parameters)


def weight_of(batch: Mapping[str, torch.Tensor]) -> int:
    """How many examples a part of the whole data set has: the first extent of its first tensor."""
    first = next(iter(batch.values()), None)
    return 1 if first is None or not first.dim() else len(first)


@contextmanager
def machine(threads: int | None, device: torch.device) -> Iterator[None]:
    """As many threads as training had; afterwards that, and every random stream, are as they were."""
    before = torch.get_num_threads()
    with Surroundings(torch.nn.Module(), [torch.empty(0, device=device)]).kept():
        try:
            torch.set_num_threads(threads or before)
            yield
        finally:
            torch.set_num_threads(before)


def _sum(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _parameters(model: torch.nn.Module, manifest: Manifest, path: str) -> list[torch.nn.Parameter]:
    """The recorded parameters, in the order of the vectors."""
    if manifest.unrecorded_parameters:
        raise UsageError(
            f"{manifest.run_id}: {manifest.unrecorded_parameters:,} trained parameters were not recorded (blocks=...), "
            "so the model cannot be put where it stood. Record all blocks to replay."
        )
    there = dict(model.named_parameters())

    def fits(block: Block) -> bool:
        p = there.get(block.name)
        return p is not None and tuple(p.shape) == block.shape and str(p.dtype) == f"torch.{block.dtype}"

    wrong = [block for block in manifest.blocks if not fits(block)]
    if wrong:
        block, found = wrong[0], there.get(wrong[0].name)
        has = "no such parameter" if found is None else f"shape {tuple(found.shape)} and dtype {found.dtype}"
        raise UsageError(
            f"{path}: build() gives another model: {len(wrong)} of {len(manifest.blocks)} recorded parameters do not "
            f"fit; {block.name!r} was recorded with shape {block.shape} and dtype {block.dtype}; there it has {has}."
        )
    chosen = [there[block.name] for block in manifest.blocks]
    for p in chosen:
        p.requires_grad_(True)
    return chosen


def _refuse_foreign(random: Mapping[str, Any] | None, device: torch.device) -> None:
    """Raise UsageError where the loss drew from a device that is not there."""
    names = [n for n in random or {} if n.startswith("torch:cuda")]
    if names and device.type != "cuda":
        raise UsageError(
            "the recorded loss drew random numbers while training on CUDA, and they cannot be drawn again on the "
            "processor. Replay on a CUDA device: --device cuda."
        )
