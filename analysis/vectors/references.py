"""Reference points: where in the space of parameters the pairs ``reference:NAME`` have their second point.

They are found before the vectors are reduced, from a glance at a few rows of the trace: its first and last point, the
last tenth of its points, those that count in an exponential mean, the last one of each epoch.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import polars as pl

from analysis.vectors.passes import Segment
from tracer.store import Trace
from tracer.store.points import REFERENCES as REFERENCES
from tracer.store.points import epoch_ends, find, label, point

Array = npt.NDArray[Any]
PIECE = 1 << 12  # elements of a sum that stay in the cache


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
        row[:] = point(trace, self.ends[epoch][0], verify=False) if epoch in self.ends else np.nan

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
    table = records.to_arrow()
    ends = epoch_ends(table) if "epoch_last" in wanted else {}
    found: dict[str, Array] = {}
    for name in dict.fromkeys(wanted) if records["has_x"].any() else ():
        at = find(trace, table, name, columns=columns, add=_add, verify=False)
        at = np.zeros(trace.parameters) if name == "epoch_last" and ends else at
        if at is not None:
            found[label(name)] = at
    vectors = np.empty((len(found), trace.parameters), trace.manifest.dtype)
    for row, at in zip(vectors, found.values(), strict=True):
        row[:] = at
    return Points(tuple(found), vectors, ends)


def _add(x: Array, weights: Array, first: int, last: int, total: Array) -> None:
    """Add Σ w_t x_t to ``total`` between two coordinates; each is added up by one thread, row after row."""
    parts = range(first, last, max(PIECE, -(-(last - first) // (os.cpu_count() or 1))))
    with ThreadPoolExecutor(len(parts) or 1) as pool:
        list(pool.map(lambda a: _add_weighted(x, weights, a, min(a + parts.step, last), total), parts))


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _add_weighted(x: Array, weights: Array, first: int, last: int, total: Array) -> None:
    rows = np.flatnonzero(weights)  # the others hold anything
    for a in range(first, last, PIECE):
        b = min(a + PIECE, last)
        part, k = total[a:b], 0
        while k + 4 <= rows.size:  # four at a time: the sum is read and written a quarter as often
            r, s, t, u = rows[k], rows[k + 1], rows[k + 2], rows[k + 3]
            xr, xs, xt, xu = x[r][a:b], x[s][a:b], x[t][a:b], x[u][a:b]
            for i in range(part.size):
                so_far = part[i] + weights[r] * np.float64(xr[i])
                so_far = so_far + weights[s] * np.float64(xs[i])
                so_far = so_far + weights[t] * np.float64(xt[i])
                part[i] = so_far + weights[u] * np.float64(xu[i])
            k += 4
        for r in rows[k:]:
            row = x[r][a:b]
            for i in range(part.size):
                part[i] += weights[r] * np.float64(row[i])
