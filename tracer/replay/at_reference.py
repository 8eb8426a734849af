"""What is asked at reference points: the loss of each minibatch there, and products of its gradient."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from tracer.replay.engine import Engine
from tracer.replay.points import Reference
from tracer.replay.products import NAMES, Floats, products_of_rows
from tracer.replay.questions import Finish, eligible, schema
from tracer.replay.source import Source

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class AtReference:
    """f(y, z_t) at a reference point y; with ``gradients`` also the products of its gradient, per block.

    Steps are answered together: the model is put at y once, and products are formed of many gradients at a time.
    """

    reference: Reference
    gradients: bool
    every: int
    names: tuple[str, ...]
    at_once: ClassVar[int] = 32
    schema: ClassVar[pa.Schema] = schema(
        step="int64", pairing="string", block="string", loss_y="float64", gy_d="float64", dg_d="float64",
        dg_dg="float64", gy_gy="float64", gx_gy="float64", dg_norms="float64", gy_step="float64",
    )  # fmt: skip

    @property
    def table(self) -> str:
        """The pairing."""
        return f"reference:{self.reference.name}"

    @property
    def settings(self) -> dict[str, Any]:
        """Where the point is, and what is asked there."""
        return {"point": self.reference.fingerprint, "gradients": self.gradients, "every": self.every}

    def rows(self, source: Source) -> list[int]:
        """Steps with a gradient."""
        return eligible(source, self.every)

    def answer(self, engine: Engine, source: Source, rows: Sequence[int]) -> Finish:
        """Ask at the steps' reference points, a table for each of them."""
        found, start = [], 0
        points = [self.reference.of(source.epoch(row)) for row in rows]
        for stop in range(1, len(rows) + 1):
            if stop == len(rows) or points[stop] is not points[start]:
                if (y := points[start]) is not None:
                    found.append(self._at(engine, source, rows[start:stop], y))
                start = stop
        return lambda: pa.concat_tables([self.schema.empty_table(), *(finish() for finish in found)])

    def _at(self, engine: Engine, source: Source, rows: Sequence[int], y: Array) -> Finish:
        """Ask at steps with one reference point."""
        point = engine.tensor(y)
        engine.place(point)
        losses, asked = np.zeros(len(rows)), np.zeros(len(rows), bool)
        gy = torch.empty(len(rows) if self.gradients else 0, engine.size, dtype=engine.dtype, device=engine.device)
        for i, row in enumerate(rows):
            minibatch = engine.minibatch(source.minibatch(row))
            if minibatch:
                losses[i] = engine.ask(minibatch, self.gradients, into=gy[i] if self.gradients else None).loss
                asked[i] = True
        steps, blocks = source.steps[np.asarray(rows)], engine.blocks
        if not self.gradients:
            return lambda: self.table_of(steps[asked], losses[asked], None)
        (x, _), (gx, _) = source.vectors("x", rows), source.vectors("g", rows)
        before, known = source.vectors("x", rows, -1)

        def finish() -> pa.Table:
            values = products_of_rows(blocks, x, point, gx, gy, before, known)
            return self.table_of(steps[asked], losses[asked], values[asked])

        return finish

    def table_of(self, steps: npt.NDArray[np.int64], losses: Floats, values: Floats | None) -> pa.Table:
        """The table of ``n`` steps.

        Args:
            losses: f(y, z_t), shape ``(n,)``.
            values: of :func:`tracer.replay.products.products`, shape ``(n, 1 + blocks, 6)``; None without gradients.
        """
        names = self.names if values is not None else self.names[:1]
        count = len(names)
        of_model = np.tile(np.arange(count) == 0, len(steps))
        columns: dict[str, Any] = {
            "step": np.repeat(steps, count),
            "pairing": pa.array([self.table]).take(pa.array(np.zeros(len(of_model), np.int32))),
            "block": pa.array(names).take(pa.array(np.tile(np.arange(count), len(steps)))),
            "loss_y": pa.array(np.repeat(losses, count), mask=~of_model),
        }
        if values is not None:
            norms = np.sqrt(values[:, :, NAMES.index("dg_dg")])
            norms[:, 0] = norms[:, 1:].sum(axis=1)
            columns |= {name: values[:, :, i].ravel() for i, name in enumerate(NAMES)}
            columns["dg_norms"] = norms.ravel()
            columns["gy_step"] = pa.array(columns["gy_step"], mask=np.isnan(columns["gy_step"]))
        missing = pa.nulls(len(of_model), pa.float64())
        return pa.table([pa.array(columns.get(f.name, missing), f.type) for f in self.schema], schema=self.schema)
