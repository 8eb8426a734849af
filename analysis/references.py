"""Reference points: where in the space of parameters the pairs ``reference:NAME`` have their second point.

They are found before the vectors are reduced, from a glance at a few rows of the trace: its first and last point, the
last tenth of its points, those that count in an exponential mean, the last one of each epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import polars as pl

from analysis.passes import Segment
from tracer.errors import FormatError, UsageError
from tracer.store import Trace
from tracer.store.home import check_run_id

Array = npt.NDArray[Any]

REFERENCES = ("last", "tail_mean", "ema", "epoch_last", "best_loss", "initial", "random")
"""References of every run: its last point; the mean of the last tenth of its points; their exponential mean with factor
0.999, corrected for its start; the last point of each step's own epoch (where epochs were recorded); the point with the
lowest recorded loss, which is one minibatch's (where losses were); and two that no claim should hold for: the first
point, and a random one as far from the first as the last is. Beside them ``run:ID``, the last point of another run of
the same model in the same directory, and ``point:FILE``, a vector in a .npy file."""

EMA = 0.999
TAIL = 10  # one in so many points is in the tail
SEED = 20240701


@dataclass(frozen=True)
class Points:
    """Reference points of one run.

    Args:
        names: as in the column ``pairing``, without ``reference:``.
        vectors: shape ``(k, d)``, in the dtype of the trace, so that a model can stand there. The row of
            ``epoch_last`` holds anything until :meth:`turn_to`.
        ends: row of the trace and step of the last point of each epoch; empty without that reference.
    """

    names: tuple[str, ...]
    vectors: Array
    ends: dict[int, tuple[int, int]]

    @property
    def last(self) -> Array | None:
        """The last point, where it is one of the references."""
        return self.vectors[self.names.index("last")] if "last" in self.names else None

    def turn_to(self, trace: Trace, epoch: int | None) -> None:
        """Put the last point of ``epoch`` into the row of ``epoch_last``; NaN where that epoch is not known."""
        row = self.vectors[self.names.index("epoch_last")]
        row[:] = _row(trace, self.ends[epoch][0]) if epoch in self.ends else np.nan

    def correct(self, segment: Segment, ahead: Array, missing: Array) -> None:
        """Correct d_ahead of the step before ``segment`` if that was of another epoch, and had another reference point.

        The last step of an epoch stands at its reference point: x − y is zero there.
        """
        before = segment.before
        if before is None or before.record["epoch"][0] == segment.epoch:
            return
        ahead[0] = 0.0
        missing[0] = before.step != self.ends.get(before.record["epoch"][0], (-1, -1))[1]


def find_points(trace: Trace, records: pl.DataFrame, wanted: Sequence[str], columns: slice = slice(None)) -> Points:
    """The wanted reference points; one that this run does not have (no epochs, no losses, no points) is left out.

    ``columns`` are the coordinates that are looked at: means of many points hold anything elsewhere.

    Raises:
        UsageError: a name is not known, or a point is not one of this model.
        FormatError: another run's files are damaged or missing.
    """
    there = np.flatnonzero(records["has_x"].to_numpy()) if len(records) else np.empty(0, np.int64)
    ends = _epoch_ends(records) if "epoch_last" in wanted else {}
    found: dict[str, Array] = {}
    for name in dict.fromkeys(wanted) if len(there) else ():
        kind, _, which = name.partition(":")
        if kind == "run" and which:
            found[name] = _last_of_run(trace, which)
        elif kind == "point" and which:
            found[f"point:{Path(which).stem}"] = _from_file(trace, Path(which))
        elif name not in REFERENCES:
            raise UsageError(f"Reference {name!r} is not known; expected run:ID, point:FILE or one of {REFERENCES}.")
        elif (point := _of_this_run(name, trace, records, there, bool(ends), columns)) is not None:
            found[name] = point
    vectors = np.empty((len(found), trace.parameters), trace.manifest.dtype)
    for row, point in zip(vectors, found.values(), strict=True):
        row[:] = point
    return Points(tuple(found), vectors, ends)


def _of_this_run(
    name: str, trace: Trace, records: pl.DataFrame, there: Array, epochs: bool, columns: slice
) -> Array | None:
    first, last = int(there[0]), int(there[-1])
    if name in ("initial", "last"):
        return _row(trace, first if name == "initial" else last)
    if name == "random":
        return _random(_row(trace, first), _row(trace, last))
    if name == "best_loss":
        known = records["has_x"] & records["loss"].is_finite().fill_null(False)
        lowest = records.with_row_index().filter(known).sort("loss", maintain_order=True).head(1)
        return _row(trace, int(lowest["index"][0])) if len(lowest) else None
    if name == "tail_mean":
        count = -(-len(there) // TAIL)
        tail = there[-count:]
        return _weighted_mean(trace, tail, np.full(len(tail), 1 / len(tail)), columns)
    if name == "ema":
        fades = EMA ** np.arange(len(there))[::-1]  # also the share of all weights that older points have
        counts = fades > np.finfo(trace.manifest.dtype).eps / 8  # the others change no digit
        return _weighted_mean(trace, there[counts], fades[counts] * (1 - EMA) / (1 - EMA ** len(there)), columns)
    return np.zeros(trace.parameters) if epochs else None  # of the last point of each epoch


def _row(trace: Trace, row: int) -> Array:
    (found,) = trace.rows("x", row, row + 1)
    return np.array(found[0])


def _random(first: Array, last: Array) -> Array:
    direction = np.random.default_rng(SEED).standard_normal(len(first), np.float32).astype(np.float64)
    distance = np.linalg.norm(np.subtract(last, first, dtype=np.float64))
    direction *= distance / np.linalg.norm(direction)
    return np.asarray(first + direction)


def _weighted_mean(trace: Trace, rows: Array, weights: Array, columns: slice) -> Array:
    """Σ w_i x_i over rows of the trace in their order: how the trace is cut into chunks does not matter."""
    total = np.zeros(trace.parameters)
    first, last, _ = columns.indices(trace.parameters)
    start, stop = int(rows[0]), int(rows[-1]) + 1
    of_row = np.zeros(stop - start)
    of_row[rows - start] = weights
    at = 0
    for found in trace.rows("x", start, stop):
        _add_weighted(found, of_row[at : at + len(found)], first, last, total)
        at += len(found)
    return total


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _add_weighted(x: Array, weights: Array, first: int, last: int, total: Array) -> None:
    piece = 1 << 12
    for a in range(first, last, piece):
        part = total[a : min(a + piece, last)]
        for t in range(x.shape[0]):
            if weights[t] != 0:
                row = x[t][a : min(a + piece, last)]
                for i in range(row.size):
                    part[i] += weights[t] * np.float64(row[i])


def _epoch_ends(records: pl.DataFrame) -> dict[int, tuple[int, int]]:
    known = records.with_row_index().filter("has_x", "has_g", pl.col("epoch").is_not_null())
    found = known.group_by("epoch").agg(pl.col("index", "step").last())
    return {epoch: (row, step) for epoch, row, step in found.iter_rows()}


def _last_of_run(trace: Trace, run_id: str) -> Array:
    other = Trace(trace.path.parent / check_run_id(run_id))
    shapes, expected = ([(b.name, b.shape) for b in each.blocks] for each in (other, trace))
    there = pl.DataFrame(pl.from_arrow(other.records()))["has_x"].arg_true()
    if shapes != expected or not len(there):
        found = f"records {other.parameters} numbers in {len(shapes)} tensors and {len(there)} points"
        raise UsageError(
            f"Reference run:{run_id}: {found}; expected the {len(expected)} tensors of {trace.run_id}, "
            f"{trace.parameters} numbers, and a point. Name a run of the same model."
        )
    return _row(other, int(there[-1]))


def _from_file(trace: Trace, path: Path) -> Array:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: not readable as a .npy file ({error}).") from None
    if found.shape != (trace.parameters,) or found.dtype.kind != "f":
        raise UsageError(
            f"{path}: has shape {found.shape} and dtype {found.dtype}; expected the {trace.parameters} parameters of "
            f"{trace.run_id} as one vector of floats, tensor by tensor in the order of its manifest."
        )
    return np.asarray(found)
