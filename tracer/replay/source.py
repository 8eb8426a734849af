"""What a trace gives for one step: its point and neighbours, gradient, record and minibatch. Reads forwards."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tracer.store import Chunk, MicroBatch, Trace

Array = npt.NDArray[Any]
NEARBY = 16  # minibatches that are read and passed over rather than sought


@dataclass(frozen=True)
class Visit:
    """One step t.

    Args:
        x: x_t, shape ``(d,)``.
        g: g_t, None at the closing row.
        before: x_{t−1}; None at the start of an attempt, after a gap, and where it was not asked for.
        after: x_{t+1}; None before a gap, at the end, and where it was not asked for.
        batches: the minibatch z_t.
    """

    step: int
    row: int
    x: Array
    g: Array | None
    before: Array | None
    after: Array | None
    batches: list[MicroBatch]


class Source:
    """Visits steps of a trace; cheap in rising order, right in any. At most three chunks are mapped."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.steps = trace.steps
        records = trace.records()
        self.records = {
            name: records[name].to_numpy(zero_copy_only=False) for name in ("loss", "epoch", "has_x", "has_g")
        }
        rate = records["lr"] if "lr" in records.column_names else None
        self.lr: Array = np.full(len(self.steps), np.nan) if rate is None else rate.to_numpy(zero_copy_only=False)
        self._chunks: Iterator[Chunk] = iter(())
        self._held: deque[tuple[int, Chunk]] = deque(maxlen=3)  # each with its first row
        self._restart()
        self._batches: Iterator[tuple[int, list[MicroBatch]]] | None = None
        self._next_row = 0  # whose minibatch that iterator gives next

    def visit(self, row: int, before: bool = False, after: bool = False) -> Visit:
        """The step in a row of the trace, with the neighbours that are asked for."""
        x = self._vector("x", row, row)
        assert x is not None  # callers choose rows that have a point
        return Visit(
            step=int(self.steps[row]),
            row=row,
            x=x,
            g=self._vector("g", row, row),
            before=self._vector("x", row - 1, row) if before else None,
            after=self._vector("x", row + 1, row) if after else None,
            batches=self._minibatch(row) if self.trace.manifest.batches else [],
        )

    def stream(self, name: str, row: int) -> Array | None:
        """A recorded vector of the step in ``row``."""
        return self._vector(name, row, row)

    def _vector(self, stream: str, row: int, beside: int) -> Array | None:
        """A copy of a recorded vector, if it belongs to the attempt and the stretch of steps of ``beside``."""
        if not 0 <= row < len(self.steps) or abs(int(self.steps[row] - self.steps[beside])) != abs(row - beside):
            return None
        (start, chunk), (_, home) = self._chunk(row), self._chunk(beside)
        has = chunk.has.get(stream)
        if chunk.attempt != home.attempt or has is None or not has[row - start]:
            return None
        return np.array(chunk.streams[stream][row - start])

    def _chunk(self, row: int) -> tuple[int, Chunk]:
        if self._held and row < self._held[0][0]:
            self._restart()
        while not self._held or row >= self._held[-1][0] + len(self._held[-1][1].steps):
            start = self._held[-1][0] + len(self._held[-1][1].steps) if self._held else 0
            self._held.append((start, next(self._chunks)))
        return next(found for found in reversed(self._held) if row >= found[0])

    def _restart(self) -> None:
        self._chunks = self.trace.chunks()
        self._held.clear()

    def _minibatch(self, row: int) -> list[MicroBatch]:
        if self._batches is None or not 0 <= row - self._next_row < NEARBY:
            self._batches = self.trace.batches_by_step(first=int(self.steps[row]))
            self._next_row = row
        while True:
            _, found = next(self._batches)
            self._next_row += 1
            if self._next_row > row:
                return found
