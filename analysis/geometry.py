"""Trace to geometry: where vectors end and tables begin."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path as File

import numpy as np
import polars as pl

from analysis.columns import GEOMETRY, PATH
from analysis.tables import MODEL, REFERENCE, Facts, Tables, pairing_type
from analysis.vectors import pairs
from analysis.vectors.dynamics import Dynamics
from analysis.vectors.long import LateColumns, LongTable
from analysis.vectors.pairs import Reduced
from analysis.vectors.passes import Pass
from analysis.vectors.path import Path
from analysis.vectors.reduce import Progress, reduce
from analysis.vectors.references import REFERENCES, Points, find_points
from analysis.vectors.sharing import Workers, gathered
from analysis.vectors.spread import THREADS, Spread
from tracer.store import Trace


@np.errstate(over="ignore", invalid="ignore")  # the numbers of a run that diverged say so themselves
def geometry(
    trace: Trace,
    progress: Progress | None = None,
    references: Sequence[str] = REFERENCES,
    passes: Iterable[Pass] | None = None,
    parts: File | None = None,
    workers: Workers | None = None,
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
        references: names of reference points, see :mod:`analysis.vectors.references`.
        passes: what else is computed while the vectors are at hand: columns of the path. The optimizer's own formula
            (:class:`analysis.vectors.dynamics.Dynamics`) unless given.
        parts: a directory for tables that outgrow memory; the lazy tables then read files there.
        workers: processes that share the work, where ``parts`` is a directory that they see, too. The result is the
            same bit for bit. Passes of one's own are computed here, without them.

    Raises:
        FormatError: the trace is damaged; nothing is computed from a damaged file.
        UsageError: a reference point is not known.
    """
    steps = pl.DataFrame(pl.from_arrow(trace.records()))
    alone: AbstractContextManager[Spread] = nullcontext(THREADS)
    with gathered(trace, references, workers, parts) if workers and parts and passes is None else alone as spread:
        points = find_points(trace, steps, references, spread.columns)
        facts = replace(Facts.of(trace.manifest, trace.digest), references=points.names)
        dynamics = Dynamics(trace.manifest, steps, points.last, spread)
        facts = replace(facts, formula_why=dynamics.why)
        pairings, path = _Pairs(trace, points, facts, parts), Path((dynamics,) if passes is None else passes)
        out = _path_table(facts, parts)
        for reduced in reduce(trace, steps, points, spread, verify=spread is THREADS, progress=progress):
            pairings.add(reduced)
            out.add(path.rows(reduced))
    for rows in path.rest():
        out.add(rows)
    return Tables(pairings.frame(), out.frame(), steps.lazy(), facts)


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
