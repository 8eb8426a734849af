"""The same minibatches at the same points in double precision: a loss difference without the recorded rounding.

Points are taken as they were recorded. Parameters, buffers and the minibatch's floating tensors are widened, autocast
is left out, and the workload's own loss is computed with them.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch

from tracer.errors import UsageError
from tracer.replay.agreement import ALIKE, ALIKE_LOW
from tracer.replay.engine import LOW, Engine
from tracer.replay.products import dot
from tracer.replay.questions import ByRow, Row, eligible, schema
from tracer.replay.source import Source
from tracer.replay.workload import Batch, Loaded
from tracer.store.manifest import Manifest
from tracer.store.minibatch import MicroBatch


class _Checked:
    """A workload whose losses must come in double precision."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        loss = self._loaded.workload.loss(model, batch)
        if isinstance(loss, torch.Tensor) and loss.dtype is not torch.float64:
            raise UsageError(
                f"--float64: {self._loaded.path} gives a loss in {loss.dtype} though parameters and minibatch are "
                "float64. Leave conversions such as .float() out of the workload's loss."
            )
        return loss

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loaded.workload, name)


class DoubleEngine(Engine):
    """An engine whose model, minibatches and answers are float64.

    Raises:
        UsageError: as :class:`~tracer.replay.engine.Engine`, and when asked for a loss that is of another precision.
    """

    def __init__(self, loaded: Loaded, manifest: Manifest, device: torch.device) -> None:
        super().__init__(replace(loaded, workload=_Checked(loaded)), manifest, device)
        self.model.double()
        self._stand_in(torch.float64)

    def _tensors(self, batch: MicroBatch) -> dict[str, torch.Tensor]:
        found = super()._tensors(batch)
        return {name: t.double() if t.is_floating_point() else t for name, t in found.items()}

    def _as_recorded(self, modes: MicroBatch, gradient: bool) -> AbstractContextManager[Any]:
        return super()._as_recorded(replace(modes, autocast={}), gradient)


@dataclass(frozen=True)
class InDouble(ByRow):
    """f at x_t and x_{t−1} on z_t and both slopes along the step, all of it in double precision."""

    every: int
    build: Callable[[], DoubleEngine] = field(compare=False)
    built: list[DoubleEngine] = field(default_factory=list, compare=False)  # at the first answer
    table: ClassVar[str] = "float64"
    schema: ClassVar[pa.Schema] = schema(
        step="int64", loss_x="float64", loss_y="float64", gx_d="float64", gy_d="float64", room="float64"
    )

    @property
    def settings(self) -> dict[str, Any]:
        """Which steps."""
        return {"every": self.every}

    def rows(self, source: Source) -> list[int]:
        """Steps whose previous point is there."""
        return eligible(source, self.every, before=True)

    def of_row(self, engine: Engine, source: Source, row: int) -> list[Row]:
        """Step, both losses, ⟨∇f(x), d⟩, ⟨∇f(y), d⟩ and ‖d‖ max(‖∇f(x)‖, ‖∇f(y)‖), which their rounding scales with.

        Raises:
            UsageError: the loss is not computed in double precision, or is another one there.
        """
        if not self.built:
            self.built.append(self.build())
        wide, visit = self.built[0], source.visit(row, before=True)
        minibatch = wide.minibatch(visit.batches)
        if visit.before is None or not minibatch:
            return []
        x, y = wide.tensor(visit.x), wide.tensor(visit.before)
        d, answers = x - y, []
        for point in (x, y):
            wide.place(point)
            answers.append(wide.ask(minibatch, gradient=True))
        slopes = [dot(each.gradient, d) for each in answers if each.gradient is not None]
        sizes = [math.sqrt(dot(each.gradient, each.gradient)) for each in answers if each.gradient is not None]
        _require_alike(answers[0].loss, source, row)
        return [(visit.step, *(each.loss for each in answers), *slopes, max(sizes) * math.sqrt(dot(d, d)))]


def _require_alike(loss: float, source: Source, row: int) -> None:
    all_losses = source.records["loss"].astype(float)
    recorded = all_losses[row]
    if not math.isfinite(loss) or not math.isfinite(recorded):
        return
    low = source.trace.manifest.loss_dtype in LOW
    usual = float(np.median(np.abs(all_losses[np.isfinite(all_losses)])))
    if abs(loss - recorded) > (ALIKE_LOW if low else ALIKE) * max(abs(recorded), usual):
        raise UsageError(
            f"--float64: at step {source.steps[row]} the loss is {loss:.6g} in double precision and {recorded:.6g} as "
            "recorded, which is more than rounding. Does it draw other random numbers in double precision (dropout)? "
            "Then this is the loss of another minibatch."
        )
