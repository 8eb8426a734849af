"""Was every update the optimizer's own? The formula on the recorded gradients and settings, beside what happened.

The moments are carried from update to update in double precision, from the first one of the training on; recorded
buffers of the optimizer replace them where there are any. What is left between step and formula is the *slip*.

How large a slip may be. Training computes in the dtype of a parameter and stores the result; every operation rounds by
at most one unit roundoff u of its result, every scalar (learning rate, β) by as much again. To first order the slip of
one coordinate is then at most

    R u (|x_t| + |x_{t+1}|) + lr · (error of the moments) + R u |step|,     R = 4

for no term goes through more than three roundings and one scalar. The error of m obeys E ← β₁ (E + R u |m|) + R u
((1 − β₁)|u| + |m|), the same way as m itself; for Adam that of m/D does, where D shrinks by at most √β₂ an update. The
relative error of v gathers 3u an update, over at most 5/(1 − β₂) of them. By the triangle inequality the norms over a
block obey the same recursion, so that a bound needs a few sums a row and no vector: ``slip_room``, squared as
``slip_slip`` is. u is that of the parameter's dtype or of the recorded one, the coarser. In float64 the room is some
10⁻¹⁵ of a point. Parameters trained in bfloat16 leave room for almost anything; the check says so.

What leaves a block alone: an update that a gradient scaler skipped, and a parameter without a gradient. The trace keeps
a gradient of zero for such a parameter; a block that stood still with a gradient of zero was not updated. Whether an
update was counted where the moments, too, are zero, the first step that moves the block tells.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from analysis.optimizers import ADAM, RATE, SCALE, STILL, Formula, formula_of
from analysis.rounding import roundoff
from analysis.vectors.dynamics_kernel import (
    BROKEN,
    CARRIED,
    MOVED,
    SUMS,
    ZERO,
    adam_rows,
    fates,
    rooms,
    sgd_rows,
)
from analysis.vectors.kernel import cuts
from analysis.vectors.passes import Segment
from analysis.vectors.spread import THREADS, Spread, parts_of
from tracer.store.manifest import Manifest

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_SUMMED = ("m_m", "g_m", "g_mprev", "dd_adam", "qq_adam", "mhat_e", "decay_e", "ee_adam", "ee_ahead", "slip_e")
_OF_ADAM = ("dd_adam", "qq_adam", "mhat_e", "decay_e", "ee_adam", "ee_ahead", "slip_e")
_OF_REFERENCE = ("mhat_e", "decay_e", "ee_adam", "ee_ahead", "slip_e")
_OF_ARRIVAL = ("dd_adam", "qq_adam")  # they belong to the point that the update reached
_ROWS = 256  # updates handled at once


@dataclass(frozen=True)
class _Updates:
    """``n`` updates in a row: the points left, what was recorded there, and the points reached."""

    left: dict[str, Array]  # streams at the points left, shape (n, d)
    x: Array  # points reached, shape (n, d)
    g: Array  # gradients there, where recorded
    h: Array  # look-back gradients there, where recorded
    probed: Flags  # whether g and h are
    has: dict[str, Flags]  # of the streams in left
    records: pl.DataFrame  # step records of the updates


class Dynamics:
    """A pass (:class:`analysis.vectors.passes.Pass`): the dynamics columns of the path table.

    Args:
        manifest, records: of the run; ``records`` is its table of steps.
        last: the point that e = x_t − x_T is counted from, shape ``(d,)``; None leaves out what needs it.
        spread: who computes which part of the vectors.

    A column is missing where the formula is not known, or the moments are not: the trace does not begin with the first
    update, or leaves some out, and the optimizer's buffers were not recorded. ``why`` says it of the run as a whole.
    """

    columns: tuple[str, ...] = ("slip_slip", "slip_room", *_SUMMED)
    ahead: tuple[str, ...] = tuple(name for name in columns if name not in _OF_ARRIVAL)

    def __init__(
        self, manifest: Manifest, records: pl.DataFrame, last: Array | None = None, spread: Spread = THREADS
    ) -> None:
        self._spread = spread
        found = formula_of(manifest, records)
        self.why = found if isinstance(found, str) else ""
        self._formula = None if isinstance(found, str) else found
        sizes = [block.size for block in manifest.blocks]
        edges = np.cumsum([0, *sizes])
        self._spans = np.array(list(pairwise(edges)), np.int64)
        self._cuts = cuts(sizes)
        stored = roundoff(manifest.dtype)
        self._unit = np.array([max(roundoff(block.dtype), stored) for block in manifest.blocks])
        skipped = records.filter(pl.col("skipped").fill_null(False))["step"]
        self._skipped = frozenset(skipped.to_list())
        # a branch starts from another run's checkpoint, where the moments are not zero
        self._next: tuple[int, int] | None = (1, 0) if manifest.branch_of is None else None
        self._before_the_run = 0 if manifest.branch_of is None else int(manifest.branch_of.get("step", 0))
        if self._formula is not None:
            self._begin(self._formula, records, int(edges[-1]), manifest.dtype, last)

    def _begin(self, formula: Formula, records: pl.DataFrame, size: int, dtype: str, last: Array | None) -> None:
        flags = [formula.flags[group] for group in formula.group_of]
        self._adam = formula.kind == ADAM
        self._largest = np.array(["amsgrad" in f for f in flags])
        self._rough = np.array([bool(f & {"capturable", "fused"}) for f in flags])
        self._needs = ("m", "v", "w")[: 1 if not self._adam else 3 if self._largest.any() else 2]
        self._stateless = formula.stateless(records)
        self._moments = {name: np.zeros(size if name in self._needs else 0) for name in ("m", "v", "w")}
        self._has_last = last is not None
        self._last = _frozen(np.zeros(size if self._adam else 0, dtype) if last is None else np.asarray(last, dtype))
        self._forget(0)

    def _forget(self, updates: int) -> None:
        """The moments are zero, and ``updates`` have been."""
        blocks = len(self._spans)
        for moment in self._moments.values():
            moment[self._spread.columns] = 0
        self._counts = np.full(blocks, updates)
        self._maybe = np.zeros(blocks, np.int64)  # updates before the first that moved it, if they were any
        self._carried = np.zeros((blocks, len(CARRIED)))
        self._fresh = True  # no update has been seen since
        self._known = dict.fromkeys(("m", "v", "w"), True)

    def over(self, segment: Segment) -> tuple[Floats, Flags]:
        """Values, shape ``(n, blocks, columns)``, and which are missing, shape ``(n, columns)``."""
        n, blocks = len(segment.steps), len(self._spans)
        values, missing = np.zeros((n, blocks, len(self.columns))), np.ones((n, len(self.columns)), bool)
        if self._formula is None:
            return values, missing
        at = 0 if segment.before is not None else 1
        self._continue(int(segment.steps[0]) - int(segment.before is not None), segment.attempt)
        for part in _updates(segment):
            rows = slice(at, at + len(part.x))
            values[rows], missing[rows] = self._update(self._formula, part)
            at = rows.stop
        self._next = (segment.attempt, int(segment.steps[-1]))
        return values, missing

    def _continue(self, step: int, attempt: int) -> None:
        """Whether the moments are those that the update of ``step`` begins with; if not, let go of them."""
        if self._next is not None and self._next[0] == attempt:
            between = range(self._next[1], step)
            if step >= self._next[1] and all(s in self._skipped for s in between):
                return
        self._forget(self._before_the_run + step - sum(s < step for s in self._skipped))
        self._known = dict.fromkeys(("m", "v", "w"), False)

    # --- some updates in a row ----------------------------------------------------------------------------------

    def _update(self, formula: Formula, part: _Updates) -> tuple[Floats, Flags]:
        n, blocks = len(part.x), len(self._spans)
        fate = np.empty((n, blocks), np.int8)
        left, g = _frozen(part.left["x"]), _frozen(part.left["g"])
        fates(left, g, _frozen(part.x), self._spans, fate)
        counts, active = self._count(formula, part, fate)
        numbers = formula.numbers(part.records, np.maximum(counts, 1))
        for place, neutral in STILL.items():
            numbers[:, :, place] = np.where(active, numbers[:, :, place], neutral)
        given, kept = self._given(formula, part)
        sums = np.zeros((n, blocks, len(SUMS)))
        self._rows(part, given, kept, self._moments, self._cuts, numbers, sums, self._spread)
        room = np.empty((n, blocks))
        rooms(self._adam, sums, numbers, counts, kept, self._unit, self._rough, self._carried, room)
        return self._columns(part, numbers, sums, room, kept)

    def _rows(
        self,
        part: _Updates,
        given: tuple[Array, Array, Array],
        kept: Flags,
        moments: dict[str, Floats],
        pieces: npt.NDArray[np.int64],
        numbers: Floats,
        sums: Floats,
        spread: Spread,
    ) -> None:
        left = (_frozen(part.left["x"]), _frozen(part.left["g"]), _frozen(part.x))
        right = (_frozen(part.g), _frozen(part.h), self._last)
        state = (moments["m"], moments["v"], moments["w"])
        kept_m = np.ascontiguousarray(kept[:, 0])

        def some(of_pieces: Array) -> tuple[Floats]:
            into = np.zeros_like(sums)
            if self._adam:
                adam_rows(*left, *right, state, given, kept, self._largest, of_pieces, numbers, into)
            else:
                sgd_rows(*left, moments["m"], given[0], kept_m, of_pieces, numbers, into)
            return (into[:, int(of_pieces[0, 0]) : int(of_pieces[-1, 0]) + 1],)

        for of_pieces, (found,) in spread(some, parts_of(pieces)):
            sums[:, int(of_pieces[0, 0]) : int(of_pieces[-1, 0]) + 1] += found

    def _given(self, formula: Formula, part: _Updates) -> tuple[tuple[Array, Array, Array], Flags]:
        """Recorded moments after each update, and in which rows there are any, shape ``(n, 3)``."""
        kept = np.zeros((len(part.x), 3), bool)
        given = []
        for i, moment in enumerate(("m", "v", "w")):
            stream = formula.buffers.get(moment, "")
            given.append(_frozen(part.left.get(stream, part.left["x"])))
            if stream in part.left:
                kept[:, i] = part.has[stream]
        return (given[0], given[1], given[2]), kept

    def _columns(
        self, part: _Updates, numbers: Floats, sums: Floats, room: Floats, kept: Flags
    ) -> tuple[Floats, Flags]:
        own, scaled = sums[:, :, 0], sums[:, :, 1]  # the rate may hold the random factor already
        slip = np.where((numbers[:, :, SCALE] != 1) & (scaled < own), scaled, own)
        values = np.stack([slip, room, *(sums[:, :, SUMS.index(name)] for name in _SUMMED)], axis=2)
        settled = np.isfinite(numbers.sum(axis=(1, 2), where=~np.isinf(numbers)))
        known = settled.copy()
        before = np.ones(len(sums), bool)  # whether m was known before the update, too
        for i, moment in enumerate(self._needs):
            since = _since(self._known[moment], kept[:, i], settled) | self._stateless
            self._known[moment] = bool(since[-1])
            known &= since[1:]
            before &= since[:-1] | (i > 0)
        before[0] &= not self._fresh
        self._fresh = False
        there = dict.fromkeys(self.columns, known)
        there["g_mprev"] = known & before
        for name in _OF_ADAM:
            there[name] = there[name] & self._adam & (self._has_last or name not in _OF_REFERENCE)
        there["qq_adam"] = there["qq_adam"] & part.probed
        return values, ~np.stack([there[name] for name in self.columns], axis=1)

    # --- which updates there were, block by block ---------------------------------------------------------------

    def _count(self, formula: Formula, part: _Updates, fate: Array) -> tuple[Array, Flags]:
        """Updates of each block so far, after each of these; and whether these were any. Both ``(n, blocks)``."""
        n, blocks = fate.shape
        if (fate < ZERO).all() and not self._maybe.any():
            counts = self._counts + np.arange(1, n + 1)[:, None]
            self._counts = counts[-1].copy() if n else self._counts
            return counts, np.ones((n, blocks), bool)
        rates = formula.numbers(part.records, np.ones((n, blocks)))[:, :, RATE]
        active = (fate < ZERO) | ((fate == ZERO) & (rates == 0))
        # an optimizer that looks for infinite gradients itself leaves out the whole update
        fate[(fate == BROKEN).any(axis=1) & (fate != MOVED).all(axis=1)] = BROKEN
        active &= fate != BROKEN
        counts = np.empty((n, blocks), np.int64)
        for t in range(n):
            for k in np.flatnonzero(active[t] & (self._maybe > 0)).tolist():
                self._counts[k] += self._maybe[k] * self._counted(formula, part, t, k)
                self._maybe[k] = 0
            self._maybe += ~active[t] & (fate[t] != BROKEN) & (self._counts == 0)
            self._counts += active[t]
            counts[t] = self._counts
        return counts, active

    def _counted(self, formula: Formula, part: _Updates, t: int, k: int) -> bool:
        """Whether the updates in which block ``k`` stood still were counted: which count slips less at row ``t``."""
        a, b = self._spans[k]
        one = _row(part, t)
        slips = []
        for count in (1, 1 + int(self._maybe[k])):
            numbers = formula.numbers(one.records, np.full((1, len(self._spans)), count))
            sums = np.zeros((1, len(self._spans), len(SUMS)))
            nothing = {name: np.zeros_like(moment) for name, moment in self._moments.items()}
            piece = np.array([[k, a, b]], np.int64)
            unused = _frozen(one.left["x"])
            whole_block = (unused, unused, unused), np.zeros((1, 3), bool), nothing, piece, numbers, sums
            self._rows(one, *whole_block, THREADS)  # whoever computes a share needs the answer, too
            slips.append(float(sums[0, k, 0]))
        return slips[1] < slips[0]


def _since(known: bool, kept: Flags, settled: Flags) -> Flags:
    """Whether a moment is known before the first update and after each: recorded, or carried on by known settings."""
    if settled.all():
        return np.logical_or.accumulate(np.r_[known, kept])
    found = [known]
    for recorded, sound in zip(kept.tolist(), settled.tolist(), strict=True):
        found.append(recorded or (found[-1] and sound))
    return np.array(found)


def _updates(segment: Segment) -> list[_Updates]:
    """The updates whose both ends are known, in the order of the rows they arrive at."""
    found = []
    graded = segment.has["g"] & segment.has.get("h", np.zeros(len(segment.steps), bool))
    if segment.before is not None:
        left = {name: vector[None] for name, vector in segment.before.streams.items()}
        has = {name: np.ones(1, bool) for name in left}
        found.append(_arriving(segment, graded, left, has, segment.before.record, slice(0, 1)))
    for a in range(1, len(segment.steps), _ROWS):
        rows = slice(a, min(a + _ROWS, len(segment.steps)))
        back = slice(rows.start - 1, rows.stop - 1)
        left = {name: vectors[back] for name, vectors in segment.streams.items()}
        has = {name: there[back] for name, there in segment.has.items()}
        records = segment.records.slice(back.start, back.stop - back.start)
        found.append(_arriving(segment, graded, left, has, records, rows))
    return found


def _arriving(
    segment: Segment,
    graded: Flags,
    left: dict[str, Array],
    has: dict[str, Flags],
    records: pl.DataFrame,
    rows: slice,
) -> _Updates:
    x = segment.streams["x"][rows]
    g, h = (segment.streams.get(name, segment.streams["x"])[rows] for name in ("g", "h"))
    return _Updates(left, x, g, h, graded[rows], has, records)


def _row(part: _Updates, t: int) -> _Updates:
    one = slice(t, t + 1)
    return _Updates(
        {name: vectors[one] for name, vectors in part.left.items()},
        *(part.x[one], part.g[one], part.h[one], part.probed[one]),
        {name: there[one] for name, there in part.has.items()},
        part.records.slice(t, 1),
    )


def _frozen(array: Array) -> Array:
    """One compiled kernel serves mapped files and arrays."""
    view = np.require(array, requirements=["C", "A"]).view()
    view.setflags(write=False)
    return view
