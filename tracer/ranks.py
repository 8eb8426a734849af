"""Data-parallel training: the minibatch of a step is the union of what all processes saw."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from tracer.errors import UsageError
from tracer.store.manifest import Manifest
from tracer.store.run_writer import Step


class Ranks:
    """The processes that train together; one in the usual case, and then nothing here does anything.

    Under ``DistributedDataParallel`` the gradient that an optimizer sees is the mean over the processes. The losses and
    the probes' gradients are averaged the same way, so that f(x_t, z_t) and f(x_{t-1}, z_t) belong to the same z_t as
    g_t. Every process makes a tracer, because each must answer for its part of the minibatch; the first one writes.

    Args:
        model: as given to the tracer; the ``DistributedDataParallel`` module itself where there is one.
        parameters: of the model.

    Raises:
        UsageError: parameters are sharded over processes (FSDP, tensor parallelism).
    """

    def __init__(self, model: torch.nn.Module, parameters: Iterable[torch.Tensor]) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.count = dist.get_world_size() if together else 1
        self.first = not together or dist.get_rank() == 0
        self._wrapped = [m for m in model.modules() if isinstance(m, DistributedDataParallel)]
        sharded = next((p for p in parameters if hasattr(p, "full_tensor")), None)
        if sharded is not None:
            raise UsageError(
                f"Tracer: a parameter of shape {tuple(sharded.shape)} is sharded over processes "
                f"({type(sharded).__name__}: FSDP or tensor parallelism); no process holds the whole point. "
                "Train with DistributedDataParallel to record."
            )

    def refuse(self, probes: Sequence[str], **chosen: bool) -> None:
        """Raise :class:`UsageError` for what one process would decide without the others.

        Args:
            probes: asked for; they need the wrapped model, to keep its reducer out of their backward passes.
            chosen: argument of the tracer to whether it is in use.
        """
        if self.count == 1:
            return
        for argument, used in chosen.items():
            if used:
                raise UsageError(
                    f"Tracer: {argument} cannot be used while {self.count} processes train together: one process "
                    "would decide or write what belongs to all of them."
                )
        if probes and not self._wrapped:
            raise UsageError(
                f"Tracer: {self.count} processes train together and the model is not a DistributedDataParallel "
                "module. Give Tracer the wrapped model, so that a probe can keep to its own process."
            )

    def average(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by its mean over the processes; the sum is taken in the tensor's own dtype."""
        if self.count > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)
                tensor.div_(self.count)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Forward and backward passes inside leave the other processes alone."""
        with ExitStack() as stack:
            for module in self._wrapped:
                stack.enter_context(module.no_sync())
            yield


class Elsewhere:
    """Stands in for the run's writer in every process but the first."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest, self.layout = manifest, manifest.layout
        self.last_step: int | None = None

    def append_all(self, steps: Sequence[Step]) -> None:
        """The first process writes these steps."""
        self.last_step = steps[-1].step

    def update(self, **changes: Any) -> None:
        """The first process writes the manifest."""

    def flush(self) -> None:
        """Nothing is kept here."""

    def close(self, reason: str, **details: Any) -> None:
        """Nothing is open here."""
