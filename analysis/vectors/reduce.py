"""Vectors to products: what every process does that computes a run, or its share of one."""

from collections.abc import Callable, Iterator

import numpy as np
import polars as pl

from analysis.vectors.kernel import Array, Behind, Vectors, cuts
from analysis.vectors.pairs import Reduced
from analysis.vectors.passes import Checked, Segment, segments
from analysis.vectors.path import Along
from analysis.vectors.products import products
from analysis.vectors.references import Points
from analysis.vectors.spread import THREADS, Spread
from tracer.store import Trace

Progress = Callable[[int, int], None]

SEGMENT_ROWS = 1 << 16
"""Rows, one per step and block, that a segment has at most: what is computed at once, and takes memory."""


def reduce(
    trace: Trace,
    steps: pl.DataFrame,
    points: Points,
    spread: Spread = THREADS,
    verify: bool | range = True,
    progress: Progress | None = None,
) -> Iterator[Reduced]:
    """Products of each segment, those of the steps before carried along.

    Args:
        steps: the step records.
        spread: who computes which part of the vectors.
        verify: as in :meth:`tracer.store.Trace.chunks`.
        progress: called with chunks done and chunks in all.
    """
    most = max(1, SEGMENT_ROWS // (1 + len(trace.blocks)))
    chunks = Checked(trace, verify, progress)
    found = segments(chunks, steps, most)
    sizes = [block.size for block in trace.blocks]
    pieces, along = cuts(sizes), Along(trace.parameters, trace.manifest.dtype, spread.columns)
    losses = not trace.manifest.unrecorded_parameters  # the loss belongs to the whole model, not to a part of it
    zero = np.zeros(trace.parameters, trace.manifest.dtype)
    last: Array | None = None
    epoch: int | None = -1
    for segment in found:
        if points.ends and epoch != segment.epoch:
            epoch = segment.epoch
            points.turn_to(trace, epoch)
        vectors, behind, before = _vectors(segment, zero), _behind(segment, zero), segment.before
        carried = along.carried(segment)
        of, to = products(vectors, behind, carried, points.vectors, pieces, len(sizes), spread)
        at_start = 0 if before is None else 1 if before.earlier is None else 2
        back = np.minimum(np.arange(len(segment.steps)) + at_start, 2)
        chunks.wait()
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
