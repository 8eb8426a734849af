"""What is asked of F, the loss of the whole data set, and of the mean point of a window of steps."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from tracer.replay.engine import Engine
from tracer.replay.products import dot
from tracer.replay.questions import ByRow, Row, eligible, schema
from tracer.replay.source import Source

POINTS = 8  # of a window, at which F is evaluated for its Jensen gap


@dataclass(frozen=True)
class FullBatch(ByRow):
    """F(x_t), ‖∇F(x_t)‖² and ⟨∇F(x_t), x_{t+1} − x_t⟩ at every n-th point and at the last one."""

    every: int
    table: ClassVar[str] = "full_batch"
    schema: ClassVar[pa.Schema] = schema(step="int64", loss="float64", g_g="float64", g_ahead="float64")

    @property
    def settings(self) -> dict[str, Any]:
        """Which steps."""
        return {"every": self.every}

    def rows(self, source: Source) -> list[int]:
        """Every n-th row that has a point, and the last of them."""
        there = np.flatnonzero(source.records["has_x"])
        return sorted({*there[:: self.every].tolist(), *there[-1:].tolist()})

    def of_row(self, engine: Engine, source: Source, row: int) -> list[Row]:
        """One row; g_ahead is missing where the next point is."""
        visit = source.visit(row, after=True)
        engine.place(visit.x)
        found = engine.whole(gradient=True)
        g = found.gradient
        assert g is not None
        ahead = None
        if visit.after is not None:
            ahead = dot(g, engine.tensor(visit.after).double() - engine.tensor(visit.x).double())
        return [(visit.step, found.loss, dot(g, g), ahead)]


@dataclass(frozen=True)
class Jensen(ByRow):
    """Per window of ``length`` steps: the loss at the mean of its points, and the mean of the losses at its points.

    On the minibatches of the window (objective ``minibatch``: mean f(x̄, z_t) against mean f(x_t, z_t)), and where the
    workload has its whole data set on F, at up to eight points of the window and their mean (``full``).
    """

    length: int
    table: ClassVar[str] = "jensen"
    schema: ClassVar[pa.Schema] = schema(
        step="int64", last_step="int64", objective="string", points="int64", at_mean="float64", mean="float64"
    )

    @property
    def settings(self) -> dict[str, Any]:
        """How long a window is."""
        return {"length": self.length, "points": POINTS}

    def rows(self, source: Source) -> list[int]:
        """The first row of each window; what is left at the end is none."""
        rows = eligible(source)
        return rows[: len(rows) - self.length + 1 : self.length]

    def of_row(self, engine: Engine, source: Source, row: int) -> list[Row]:
        """A row per objective."""
        rows = eligible(source)
        window = rows[rows.index(row) :][: self.length]
        steps = int(source.steps[row]), int(source.steps[window[-1]])
        place_mean(engine, source, window)
        at_mean, losses = [], []
        for each in window:
            minibatch = engine.minibatch(source.visit(each).batches)
            if not minibatch:
                return []
            at_mean.append(engine.ask(minibatch).loss)
            losses.append(float(source.records["loss"][each]))
        found: list[Row] = [(*steps, "minibatch", len(window), float(np.mean(at_mean)), float(np.mean(losses)))]
        if engine.has_full_data():
            count = min(POINTS, len(window))
            chosen = [window[i] for i in np.linspace(0, len(window) - 1, count).astype(int)]
            place_mean(engine, source, chosen)
            whole = engine.whole().loss
            each_loss = []
            for each in chosen:
                engine.place(source.visit(each).x)
                each_loss.append(engine.whole().loss)
            found.append((*steps, "full", count, whole, float(np.mean(each_loss))))
        return found


def place_mean(engine: Engine, source: Source, rows: list[int]) -> None:
    """Put the model at the mean of some points."""
    total = np.zeros(engine.size)
    for row in rows:
        point = source.stream("x", row)
        assert point is not None
        total += point
    engine.place(total / len(rows))
