"""How the vectors of a run are handed out: segment by segment, each once, to whoever computes from them.

A segment is a stretch of consecutive steps of one attempt, as much of it as stands in one chunk and one epoch; what a
step needs of the steps before it is carried along. Where chunks are cut therefore does not matter, and each file is
read once.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from tracer.store import Chunk, Trace

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Before:
    """What stood just before a segment, at the step ``step = segment.steps[0] − 1`` of the same attempt.

    Args:
        step: that step.
        streams: its recorded vectors, shape ``(d,)`` each; ``x`` and ``g`` are always there.
        earlier: the point one step further back, shape ``(d,)``; None where the stretch begins at ``step``.
        record: its step record, a frame of one row.
    """

    step: int
    streams: dict[str, Array]
    earlier: Array | None
    record: pl.DataFrame


@dataclass(frozen=True)
class Segment:
    """``n`` consecutive steps of one attempt, all with a point and a gradient but perhaps the last.

    The last row may be a point alone: where training stood after its last update. It is there for the step that led to
    it, and has no gradient, loss or probe of its own.

    Args:
        steps: shape ``(n,)``, each one more than the one before.
        streams: every recorded stream, shape ``(n, d)``, in the dtype of the trace; read-only views of the files, so
            copy what is to be kept. Rows that were not recorded hold anything.
        has: per stream which rows were recorded, shape ``(n,)``.
        records: the step records, one row per step, columns as in the table of steps.
        before: the step before the first one; None at the start of an attempt and after a gap. Whatever a pass carries
            from segment to segment ends there.
        attempt: which process recorded it, counted from 1.
    """

    steps: npt.NDArray[np.int64]
    streams: dict[str, Array]
    has: dict[str, npt.NDArray[np.bool_]]
    records: pl.DataFrame
    before: Before | None
    attempt: int

    @property
    def graded(self) -> int:
        """How many rows have a gradient: ``n``, or ``n − 1`` where the last one is a point alone."""
        return len(self.steps) - int(not self.has["g"][-1])

    @property
    def epoch(self) -> int | None:
        """The epoch of its steps, None where the loop did not say."""
        found: int | None = self.records["epoch"][0]
        return found


class Pass(Protocol):
    """Columns of the path table, computed while the vectors are at hand.

    It sees every segment once, in order of steps. It may keep vectors of its own between segments, and lets go of them
    where ``segment.before`` is None. All its columns are additive over coordinates: the model is the sum of its blocks.

    Attributes:
        columns: names, as in :mod:`analysis.columns`.
        ahead: those of them that need the next point. In row ``i`` they speak of step ``steps[i] − 1``, for there the
            next point is known; in the first row of a segment without ``before`` they are not looked at.
    """

    columns: tuple[str, ...]
    ahead: tuple[str, ...]

    def over(self, segment: Segment) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Values, shape ``(n, blocks, columns)``, and which of them are missing, shape ``(n, columns)``.

        A number that is undefined is NaN and not missing; a value that is missing may be anything.
        """
        ...


def segments(chunks: Iterable[Chunk], records: pl.DataFrame, most: int = 1 << 16) -> Iterator[Segment]:
    """Cut chunks into segments of at most ``most`` steps, each within one epoch.

    Args:
        records: the step records, one row per step of the chunks, in their order.
    """
    before: Before | None = None
    attempt, at = 1, 0
    epochs = records["epoch"].fill_null(-1).to_numpy()
    for chunk in chunks:
        if chunk.attempt != attempt:  # nobody vouches that a resumed training stood where the one before it ended
            attempt, before = chunk.attempt, None
        of_chunk, epoch = records.slice(at, len(chunk.steps)), epochs[at : at + len(chunk.steps)]
        at += len(chunk.steps)
        for rows in _shortened(_stretches(chunk, before), epoch, most):
            if before is not None and before.step + 1 != int(chunk.steps[rows.start]):
                before = None
            segment = Segment(
                steps=chunk.steps[rows],
                streams={name: vectors[rows] for name, vectors in chunk.streams.items()},
                has={name: there[rows] for name, there in chunk.has.items()},
                records=of_chunk.slice(rows.start, rows.stop - rows.start),
                before=before,
                attempt=attempt,
            )
            yield segment
            before = _after(segment)


class Checked:
    """The chunks of a run; a thread of its own compares their hashes while they, and the one before, are worked on.

    Nothing may be made of a chunk before :meth:`wait` has returned.

    Args:
        verify: all of them, or those in a range; others see to the rest.
        progress: called with chunks done and chunks in all.
    """

    def __init__(self, trace: Trace, verify: bool | range, progress: Callable[[int, int], None] | None = None) -> None:
        self._trace, self._verify, self._progress = trace, verify, progress
        self._checks: list[Future[None]] = []  # of the chunk at hand and of the one after it

    def __iter__(self) -> Iterator[Chunk]:
        with ThreadPoolExecutor(1) as pool:
            waiting: list[Chunk] = []
            for number, chunk in enumerate(self._trace.chunks(False, self._progress)):
                wanted = self._verify if isinstance(self._verify, bool) else number in self._verify
                self._checks.append(pool.submit(self._trace.check if wanted else _nothing, chunk))
                waiting.append(chunk)
                if len(waiting) == 2:
                    yield waiting.pop(0)
                    self.wait()
                    self._checks.pop(0)
            for chunk in waiting:
                yield chunk
                self.wait()

    def wait(self) -> None:
        """Wait until the chunk at hand is verified.

        Raises:
            FormatError: a hash does not match.
        """
        self._checks[0].result()


def _nothing(chunk: Chunk) -> None:
    """Others verify it."""


def _stretches(chunk: Chunk, before: Before | None) -> list[slice]:
    """Rows that follow each other and hold a point and a gradient, and a last one that is a point alone."""
    point = chunk.has["x"]
    whole = point & chunk.has.get("g", np.zeros(len(chunk.steps), bool))
    found: list[slice] = []
    start: int | None = None
    last = before.step if before is not None else None  # the step a point alone may follow
    for row, step in enumerate(chunk.steps.tolist()):
        follows = last is not None and last + 1 == step
        if start is not None and not (follows and point[row]):
            found.append(slice(start, row))
            start = None
        if whole[row]:
            start, last = row if start is None else start, step
        else:
            if follows and point[row]:
                found.append(slice(row if start is None else start, row + 1))
            start = last = None
    if start is not None:
        found.append(slice(start, len(chunk.steps)))
    return found


def _shortened(stretches: list[slice], epoch: Array, most: int) -> Iterator[slice]:
    """Parts of the stretches, none longer than ``most`` and none in two epochs; a point alone has no epoch."""
    for rows in stretches:
        turns = np.flatnonzero(np.diff(epoch[rows])) + 1 + rows.start
        for a, b in pairwise((rows.start, *turns.tolist(), rows.stop)):
            yield from (slice(at, min(at + most, b)) for at in range(a, b, most))


def _after(segment: Segment) -> Before | None:
    """What the next segment needs of this one: views, no copies; they keep one chunk's file mapped."""
    if segment.graded < len(segment.steps):
        return None  # a point alone ends its stretch
    x, before = segment.streams["x"], segment.before
    earlier = x[-2] if len(x) > 1 else before.streams["x"] if before is not None else None
    here = {name: vectors[-1] for name, vectors in segment.streams.items() if segment.has[name][-1]}
    return Before(int(segment.steps[-1]), here, earlier, segment.records.tail(1))
