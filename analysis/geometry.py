"""Trace to geometry: where vectors end and tables begin."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path as File

import numpy as np
import polars as pl

from analysis import pairs
from analysis.columns import GEOMETRY, PATH
from analysis.dynamics import Dynamics
from analysis.kernel import Array, Behind, Vectors, cuts
from analysis.long import LateColumns, LongTable
from analysis.pairs import Reduced
from analysis.passes import Pass, Segment, ahead, segments
from analysis.path import Along, Path
from analysis.products import PARTS, products
from analysis.references import REFERENCES, Points, find_points
from analysis.tables import MODEL, REFERENCE, Facts, Tables, pairing_type
from tracer.store import Trace

Progress = Callable[[int, int], None]

SEGMENT_ROWS = 1 << 16
"""Rows, one per step and block, that a segment has at most: what is computed at once, and takes memory."""


@np.errstate(over="ignore", invalid="ignore")  # the numbers of a run that diverged say so themselves
def geometry(
    trace: Trace,
    progress: Progress | None = None,
    references: Sequence[str] = REFERENCES,
    passes: Iterable[Pass] | None = None,
    parts: File | None = None,
) -> Tables:
    """Read the trace and reduce every step to a few numbers per block.

    Every chunk is read, verified and reduced once. Before that, a few points are looked at for the reference points:
    the first and the last, the last tenth, those that count in the exponential mean, the last of each epoch.

    A pair joins neighbouring steps of one attempt, never steps with a gap between them. The result does not depend on
    how the trace is cut into chunks. Values are float64; null is missing (no probe, no loss), NaN is undefined (the run
    diverged).

    Memory, besides the result: for a float32 trace 24 bytes per parameter and 4 for each reference, and what the
    operating system keeps of one chunk.

    Args:
        progress: called with chunks done and chunks in all.
        references: names of reference points, see :mod:`analysis.references`.
        passes: what else is computed while the vectors are at hand: columns of the path. The optimizer's own formula
            (:class:`analysis.dynamics.Dynamics`) unless given.
        parts: a directory for tables that outgrow memory; the lazy tables then read files there.

    Raises:
        FormatError: the trace is damaged; nothing is computed from a damaged file.
        UsageError: a reference point is not known.
    """
    steps = pl.DataFrame(pl.from_arrow(trace.records()))
    points = find_points(trace, steps, references)
    facts = replace(Facts.of(trace.manifest, trace.digest), references=points.names)
    last = points.vectors[points.names.index("last")] if "last" in points.names else None
    dynamics = Dynamics(trace.manifest, steps, last)
    facts = replace(facts, formula_why=dynamics.why)
    pairings, path = _Pairs(trace, points, facts, parts), Path((dynamics,) if passes is None else passes)
    out = _path_table(facts, parts)
    chunks = ahead(trace.chunks(progress=progress))
    most = max(1, SEGMENT_ROWS // (1 + len(trace.blocks)))
    for reduced in _reduce(trace, points, segments(chunks, steps, most)):
        pairings.add(reduced)
        out.add(path.rows(reduced))
    for rows in path.rest():
        out.add(rows)
    return Tables(pairings.frame(), out.frame(), steps.lazy(), facts)


def _reduce(trace: Trace, points: Points, found: Iterable[Segment]) -> Iterator[Reduced]:
    """Products of each segment, those of the steps before carried along."""
    sizes = [block.size for block in trace.blocks]
    pieces, along = cuts(sizes), Along(trace.parameters, trace.manifest.dtype)
    losses = not trace.manifest.unrecorded_parameters  # the loss belongs to the whole model, not to a part of it
    zero = np.zeros(trace.parameters, trace.manifest.dtype)
    last: Array | None = None
    epoch: int | None = -1
    with ThreadPoolExecutor(PARTS) as pool:
        for segment in found:
            if points.ends and epoch != segment.epoch:
                epoch = segment.epoch
                points.turn_to(trace, epoch)
            vectors, behind, before = _vectors(segment, zero), _behind(segment, zero), segment.before
            carried = along.carried(segment)
            of, to = products(vectors, behind, carried, points.vectors, pieces, len(sizes), spread=pool.map)
            at_start = 0 if before is None else 1 if before.earlier is None else 2
            back = np.minimum(np.arange(len(segment.steps)) + at_start, 2)
            yield Reduced(segment, of, to, last, back, losses)
            last = of[-1]


def _vectors(segment: Segment, zero: Array) -> Vectors:
    none = np.empty((0, len(zero)), zero.dtype)
    never = np.zeros(len(segment.steps), bool)
    x, g, h, a, ga, gb = (segment.streams.get(name, none) for name in ("x", "g", "h", "a", "ga", "gb"))
    has_h, has_a, has_ga, has_gb = (segment.has.get(name, never) for name in ("h", "a", "ga", "gb"))
    return Vectors(x, g, h, a, ga, gb, has_h, has_a, has_ga & has_gb)


def _behind(segment: Segment, zero: Array) -> Behind:
    before = segment.before
    if before is None:
        return Behind(zero, zero, zero, zero, False)
    x, g, a = before.streams["x"], before.streams["g"], before.streams.get("a")
    earlier = before.earlier if before.earlier is not None else zero
    return Behind(x, earlier, g, a if a is not None else zero, a is not None)


class _Pairs:
    """The geometry table as it grows: one long table per pairing."""

    def __init__(self, trace: Trace, points: Points, facts: Facts, parts: File | None) -> None:
        self._points, self._ahead_of_all = points, "a" in trace.streams
        self._type = pairing_type(facts.references)
        blocks = pl.Enum([MODEL, *facts.blocks])
        everything = 1 + len(facts.blocks)
        widths = {"previous": everything, "next": everything if self._ahead_of_all else 1, "unpaired": 1}
        widths |= {REFERENCE + name: everything if name == "last" else 1 for name in points.names}
        files = [None if parts is None else parts / f"geometry-{i}" for i in range(len(widths))]
        self._tables = {
            pairing: LongTable(GEOMETRY, ("loss_x", "loss_y"), blocks, width, file)
            for (pairing, width), file in zip(widths.items(), files, strict=True)
        }
        self._late = [LateColumns(pairs.LATE) for _ in points.names]

    def add(self, reduced: Reduced) -> None:
        """Take the pairs of a segment."""
        self._tables["previous"].add(pairs.previous(reduced))
        self._tables["unpaired"].add(pairs.unpaired(reduced))
        self._tables["next"].add(pairs.following(reduced, self._ahead_of_all))
        segment, points = reduced.segment, self._points
        for k, (name, late) in enumerate(zip(points.names, self._late, strict=True)):
            rows, ahead, missing = pairs.to_reference(reduced, k, blocks=name == "last")
            if name == "epoch_last":
                rows = rows if segment.epoch in points.ends else rows[:0]
                points.correct(segment, ahead, missing)
            self._tables[REFERENCE + name].add(late.complete(rows, ahead, missing, segment.before is not None))

    def frame(self) -> pl.LazyFrame:
        """The whole table, pairing after pairing; nothing can be added after that."""
        for name, late in zip(self._points.names, self._late, strict=True):
            for rows in late.rest():
                self._tables[REFERENCE + name].add(rows)
        return pl.concat(
            [
                table.frame().select(pl.lit(pairing, self._type).alias("pairing"), pl.all())
                for pairing, table in self._tables.items()
            ]
        )


def _path_table(facts: Facts, parts: File | None) -> LongTable:
    blocks = pl.Enum([MODEL, *facts.blocks])
    return LongTable(PATH, (), blocks, 1 + len(facts.blocks), None if parts is None else parts / "path")
