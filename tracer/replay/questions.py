"""What can be asked step by step: the recorded loss again, reference points, the loss along a step, block by block.

A question says which rows of the trace it needs and answers some at a time. Its first column is the step, by which a
replay that was interrupted knows what it has.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa

from tracer.replay.engine import Engine
from tracer.replay.products import block_names, dot, slopes
from tracer.replay.source import Source
from tracer.store.manifest import Manifest

Row = tuple[Any, ...]
Finish = Callable[[], pa.Table]  # makes a table of what was asked; needs neither model nor trace, so any thread may
MOST_NODES = 1000  # of a profile; the matrix behind the nodes has their square
RATES = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the learning rate: steps along the gradient
GRID = (-0.5, 0.0, 0.5, 1.0, 1.5)  # of s, where the profile of a step is evaluated besides the Gauss nodes


class Question(Protocol):
    """One table of results."""

    @property
    def table(self) -> str:
        """Its name."""
        ...

    @property
    def schema(self) -> pa.Schema:
        """Its columns; the first is the step that a row is found by."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """Whatever its numbers depend on besides trace and workload; plain JSON."""
        ...

    @property
    def at_once(self) -> int:
        """How many rows it is worth answering together."""
        ...

    def rows(self, source: Source) -> list[int]:
        """Rows of the trace to be answered for, rising."""
        ...

    def answer(self, engine: Engine, source: Source, rows: Sequence[int]) -> Finish:
        """Ask for some of them, of one chunk; none of the table's rows where something they need is missing."""
        ...


class ByRow:
    """A question that is answered row by row.

    Subclasses have the question's ``schema`` and :meth:`of_row`.
    """

    schema: ClassVar[pa.Schema]
    at_once: ClassVar[int] = 1

    def answer(self, engine: Engine, source: Source, rows: Sequence[int]) -> Finish:
        """Ask for one step after the other."""
        found = [each for row in rows for each in self.of_row(engine, source, row)]
        return lambda: table_of(found, self.schema)

    def of_row(self, engine: Engine, source: Source, row: int) -> list[Row]:
        """The table's rows for one row of the trace."""
        raise NotImplementedError


def table_of(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """Rows as a table."""
    columns: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * len(schema)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)


def schema(**columns: str) -> pa.Schema:
    """Columns by name and Arrow type."""
    return pa.schema([(name, pa.type_for_alias(kind)) for name, kind in columns.items()])


def eligible(source: Source, every: int = 1, before: bool = False, after: bool = False) -> list[int]:
    """Every n-th of the rows that have a point and a gradient, and the neighbours that are asked for."""
    there, steps = source.records["has_x"].astype(bool), source.steps
    chosen = there & source.records["has_g"].astype(bool)
    follows = np.append(False, np.diff(steps) == 1)
    if before:
        chosen &= follows & np.append(False, there[:-1])
    if after:
        chosen &= np.append(follows[1:] & there[1:], False)
    return [int(row) for row in np.flatnonzero(chosen)[::every]]


@dataclass(frozen=True)
class Repeat(ByRow):
    """f(x_t, z_t) and ∇f(x_t, z_t) again, at ``count`` steps spread over the run: does the recorded loss come back?"""

    count: int
    table: ClassVar[str] = "repeat"
    schema: ClassVar[pa.Schema] = schema(
        step="int64", loss="float64", replayed="float64", g_g="float64", slip_slip="float64"
    )

    @property
    def settings(self) -> dict[str, Any]:
        """How many."""
        return {"count": self.count}

    def rows(self, source: Source) -> list[int]:
        """Spread evenly, the first and the last among them."""
        all_rows = [row for row in eligible(source) if source.records["loss"][row] is not None]
        if len(all_rows) <= self.count:
            return all_rows
        return [all_rows[i] for i in np.linspace(0, len(all_rows) - 1, self.count).astype(int)]

    def of_row(self, engine: Engine, source: Source, row: int) -> list[Row]:
        """Step, recorded and replayed loss, ‖g‖² and ‖replayed g − g‖²."""
        visit = source.visit(row)
        minibatch = engine.minibatch(visit.batches)
        if not minibatch or visit.g is None:
            return []
        engine.place(visit.x)
        found = engine.ask(minibatch, gradient=True)
        assert found.gradient is not None
        g = engine.tensor(visit.g).double()
        slip = found.gradient.double() - g
        return [(visit.step, float(source.records["loss"][row]), found.loss, dot(g, g), dot(slip, slip))]


@dataclass(frozen=True)
class Profile(ByRow):
    """φ(s) = f(x_{t−1} + s d_t, z_t) and φ'(s) per block, at Gauss nodes of [0, 1] and on a grid beyond both ends."""

    nodes: int
    every: int
    names: tuple[str, ...]
    table: ClassVar[str] = "profile"
    schema: ClassVar[pa.Schema] = schema(
        step="int64", s="float64", weight="float64", block="string", loss="float64", slope="float64", d_d="float64"
    )

    @property
    def settings(self) -> dict[str, Any]:
        """Where φ is evaluated."""
        return {"nodes": self.nodes, "every": self.every, "grid": list(GRID)}

    def rows(self, source: Source) -> list[int]:
        """Steps whose previous point is there."""
        return eligible(source, self.every, before=True)

    def of_row(self, engine: Engine, source: Source, row: int) -> list[Row]:
        """For each s the model's row, which has the loss, and one per block; only Gauss nodes have a weight."""
        visit = source.visit(row, before=True)
        minibatch = engine.minibatch(visit.batches)
        if visit.before is None or not minibatch:
            return []
        y = engine.tensor(visit.before).double()
        x = engine.tensor(visit.x).double()
        d = x - y
        squares = slopes(engine.blocks, d, d).tolist()
        places, weights = gauss(self.nodes)
        found: list[Row] = []
        for s, weight in sorted([*zip(places, weights, strict=True), *((s, None) for s in GRID)], key=lambda p: p[0]):
            engine.place({0.0: y, 1.0: x}[s] if s in (0.0, 1.0) else y + s * d)
            answer = engine.ask(minibatch, gradient=True)
            assert answer.gradient is not None
            slope = slopes(engine.blocks, answer.gradient, d).tolist()
            for k, name in enumerate(self.names):
                loss = answer.loss if k == 0 else None
                found.append((visit.step, s, weight, name, loss, slope[k], squares[k]))
        return found


@dataclass(frozen=True)
class BlockGaps(ByRow):
    """One tensor k moved along its part of the step, the others where they were: f and ∇_k f there, on z_t."""

    every: int
    names: tuple[str, ...]
    table: ClassVar[str] = "block_gaps"
    schema: ClassVar[pa.Schema] = schema(
        step="int64", block="string", loss_x="float64", loss_y="float64", gx_d="float64"
    )

    @property
    def settings(self) -> dict[str, Any]:
        """Which steps."""
        return {"every": self.every}

    def rows(self, source: Source) -> list[int]:
        """Steps whose previous point is there."""
        return eligible(source, self.every, before=True)

    def of_row(self, engine: Engine, source: Source, row: int) -> list[Row]:
        """A row per block: f(x_{t−1} + E_k d), f(x_{t−1}) and ⟨∇_k f(x_{t−1} + E_k d), d_k⟩."""
        visit = source.visit(row, before=True)
        minibatch = engine.minibatch(visit.batches)
        if visit.before is None or not minibatch:
            return []
        x, y = engine.tensor(visit.x), engine.tensor(visit.before)
        engine.place(y)
        loss_y = engine.ask(minibatch).loss
        found = []
        for k, block in enumerate(engine.blocks):
            part = slice(block.offset, block.offset + block.size)
            moved = y.clone()
            moved[part] = x[part]
            engine.place(moved)
            answer = engine.ask(minibatch, gradient=True, only=k)
            assert answer.gradient is not None
            slope = dot(answer.gradient.double(), x[part].double() - y[part].double())
            found.append((visit.step, self.names[1 + k], answer.loss, loss_y, slope))
        return found


@dataclass(frozen=True)
class AlongGradient(ByRow):
    """f and ∇f at x_t − η g, g = ∇f(x_t, z_t), on z_t, for several η around the recorded learning rate."""

    every: int
    table: ClassVar[str] = "along_gradient"
    schema: ClassVar[pa.Schema] = schema(
        step="int64", rate="float64", loss_x="float64", loss="float64", dg_dg="float64", g_g="float64"
    )

    @property
    def settings(self) -> dict[str, Any]:
        """Which steps, and which η."""
        return {"every": self.every, "rates": list(RATES)}

    def rows(self, source: Source) -> list[int]:
        """Steps with a gradient."""
        return eligible(source, self.every)

    def of_row(self, engine: Engine, source: Source, row: int) -> list[Row]:
        """A row per η: f at x_t and there, the squared change of the gradient, ‖g‖²."""
        visit, rate = source.visit(row), float(source.lr[row] or 0)
        minibatch = engine.minibatch(visit.batches)
        if not minibatch or not rate > 0:
            return []
        x = engine.tensor(visit.x).double()
        engine.place(x)
        start = engine.ask(minibatch, gradient=True)
        assert start.gradient is not None
        g, found = start.gradient.double(), []
        for eta in (rate * multiple for multiple in RATES):
            engine.place(x - eta * g)
            there = engine.ask(minibatch, gradient=True)
            assert there.gradient is not None
            dg = there.gradient.double() - g
            found.append((visit.step, eta, start.loss, there.loss, dot(dg, dg), dot(g, g)))
        return found


def gauss(nodes: int) -> tuple[list[float], list[float]]:
    """Nodes and weights of Gauss–Legendre quadrature on [0, 1]; exact for polynomials of degree 2 nodes − 1."""
    if not nodes:
        return [], []
    places, weights = np.polynomial.legendre.leggauss(nodes)
    return ((places + 1) / 2).tolist(), (weights / 2).tolist()


def names_of(manifest: Manifest) -> tuple[str, ...]:
    """Names of the blocks, the model first."""
    return block_names(manifest)
