"""What a trace gives for one step: its point and neighbours, gradient, record and minibatch. Reads forwards."""

from collections import deque
from collections.abc import Iterator, Sequence
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
            batches=self.minibatch(row),
        )

    def vectors(self, stream: str, rows: Sequence[int], shift: int = 0) -> tuple[Array, npt.NDArray[np.bool_]]:
        """A vector for each of some rising rows, shape ``(n, d)``: its own, or that of ``shift`` rows on.

        Returns:
            The vectors, where they lie in a file together without a copy; and which of them are there, as in
            :meth:`visit`. The others hold anything.
        """
        home = np.asarray(rows)
        wanted = home + shift
        near = np.clip(wanted, 0, len(self.steps) - 1)
        there = (wanted == near) & (np.abs(self.steps[near] - self.steps[home]) == abs(shift))
        if shift:
            there &= self._attempts(near) == self._attempts(home)
        parts = []
        for span, first, chunk in self._by_chunk(near):
            at, has = near[span] - first, chunk.has.get(stream)
            there[span] &= False if has is None else has[at]
            together = bool((np.diff(at) == 1).all())
            parts.append(chunk.streams[stream][at[0] : at[-1] + 1] if together else chunk.streams[stream][at])
        return parts[0] if len(parts) == 1 else np.concatenate(parts), there

    def end_of_chunk(self, row: int) -> int:
        """The first row behind the chunk that ``row`` lies in."""
        first, chunk = self._chunk(row)
        return first + len(chunk.steps)

    def epoch(self, row: int) -> int | None:
        """That of the step in ``row``; None if none was recorded."""
        found = self.records["epoch"][row]
        return None if found is None or found != found else int(found)

    def minibatch(self, row: int) -> list[MicroBatch]:
        """z_t of the step in ``row``; empty if none was recorded."""
        return self._minibatch(row) if self.trace.manifest.batches else []

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

    def _by_chunk(self, rows: npt.NDArray[np.int64]) -> Iterator[tuple[slice, int, Chunk]]:
        """Which of the rising rows lie in one chunk, the chunk's first row, and the chunk."""
        i = 0
        while i < len(rows):
            first, chunk = self._chunk(int(rows[i]))
            stop = int(np.searchsorted(rows, first + len(chunk.steps)))
            yield slice(i, stop), first, chunk
            i = stop

    def _attempts(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.concatenate([np.full(s.stop - s.start, c.attempt) for s, _, c in self._by_chunk(rows)])

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
