"""Reference points of a run: found from a glance at a few rows of its trace, the same for analysis and for replay."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer.errors import FormatError, UsageError
from tracer.store.home import check_run_id
from tracer.store.trace import Trace

Array = npt.NDArray[Any]
Add = Callable[[Array, Array, int, int, Array], None]

REFERENCES = ("last", "tail_mean", "ema", "epoch_last", "best_loss", "initial", "random")
"""References of every run: its last point; the mean of the last tenth of its points; their exponential mean with factor
0.999, corrected for its start; the last point of each step's own epoch (where epochs were recorded); the point with the
lowest recorded loss, which is one minibatch's (where losses were); and two that no claim should hold for: the first
point, and a random one as far from the first as the last is. Beside them ``run:ID``, the last point of another run of
the same model in the same directory, and ``point:FILE``, a vector in a .npy file."""

EMA = 0.999
TAIL = 10  # one in so many points is in the tail
SEED = 20240701
PIECE = 1 << 14  # elements


def label(name: str) -> str:
    """A reference's name as in the column ``pairing``: of ``point:FILE`` without the directory and the ending.

    Raises:
        UsageError: it is not known.
    """
    kind, _, which = name.partition(":")
    if kind == "point" and which:
        return f"point:{Path(which).stem}"
    if not (kind == "run" and which) and name not in REFERENCES:
        raise UsageError(f"reference {name!r:.80} is not known; expected run:ID, point:FILE or one of {REFERENCES}.")
    return name


def add_weighted(x: Array, weights: Array, first: int, last: int, total: Array) -> None:
    """Add Σ w_t x_t over the rows of ``x`` to ``total``, between two coordinates, one row after the other."""
    for row, weight in zip(x, weights.tolist(), strict=True):
        if weight:
            total[first:last] += weight * row[first:last].astype(np.float64)


def find(
    trace: Trace,
    records: pa.Table,
    name: str,
    *,
    columns: slice = slice(None),
    add: Add = add_weighted,
    verify: bool = True,
) -> Array | None:
    """One reference point, shape ``(d,)``; None where this run has none of that name (no losses, no points).

    ``epoch_last`` is a point for each epoch: see :func:`epoch_ends`.

    Args:
        trace, records: of the run.
        name: one of :data:`REFERENCES` or ``run:ID`` or ``point:FILE``.
        columns: the coordinates that are looked at; a mean of many points holds anything elsewhere.
        add: what adds rows up; a compiled one is faster.
        verify: whether every chunk up to the point is compared with its hash. Who reads all of them anyway need not.

    Raises:
        UsageError: the name is not known, or the point is not one of this model.
        FormatError: a file is damaged or missing.
    """
    label(name)
    kind, _, which = name.partition(":")
    if which:
        return _last_of_run(trace, which, verify) if kind == "run" else _from_file(trace, Path(which))
    there = np.flatnonzero(_numbers(records, "has_x"))
    if not len(there) or name == "epoch_last":
        return None
    first, last = int(there[0]), int(there[-1])
    if name == "best_loss":
        losses = _numbers(records, "loss").astype(float)[there]
        known = np.flatnonzero(np.isfinite(losses))
        return point(trace, int(there[known[losses[known].argmin()]]), verify) if len(known) else None
    if name == "random":
        return _random(point(trace, first, verify), point(trace, last, verify))
    if name == "tail_mean":
        count = -(-len(there) // TAIL)
        return _weighted_mean(trace, there[-count:], np.full(count, 1 / count), columns, add, verify)
    if name == "ema":
        fades = EMA ** np.arange(len(there))[::-1]  # also the share of all weights that older points have
        counts = fades > np.finfo(trace.manifest.dtype).eps / 8  # the others change no digit
        weights = fades[counts] * (1 - EMA) / (1 - EMA ** len(there))
        return _weighted_mean(trace, there[counts], weights, columns, add, verify)
    return point(trace, first if name == "initial" else last, verify)


def point(trace: Trace, row: int, verify: bool = True) -> Array:
    """The point in a row of the trace, shape ``(d,)``, in the dtype of the trace."""
    (found,) = _rows(trace, row, row + 1, verify)
    return np.array(found[0])


def epoch_ends(records: pa.Table) -> dict[int, tuple[int, int]]:
    """Row of the trace and step of the last point of each epoch; empty where no epoch was recorded."""
    known = _numbers(records, "has_x") & _numbers(records, "has_g")
    known &= records["epoch"].is_valid().to_numpy(zero_copy_only=False)
    epochs, steps = _numbers(records, "epoch"), _numbers(records, "step")
    return {int(epochs[row]): (int(row), int(steps[row])) for row in np.flatnonzero(known)}  # the last one stays


def _numbers(records: pa.Table, name: str) -> Array:
    """A column; objects or floats with NaN where something is missing."""
    return np.asarray(records[name].to_numpy(zero_copy_only=False))


def _rows(trace: Trace, start: int, stop: int, verify: bool) -> Iterator[Array]:
    if not verify:
        yield from trace.rows("x", start, stop)
        return
    at = 0
    for chunk in trace.chunks():
        a, b = max(start - at, 0), min(stop - at, len(chunk.steps))
        if a < b:
            yield chunk.x[a:b]
        at += len(chunk.steps)
        if at >= stop:
            return


def _random(first: Array, last: Array) -> Array:
    """In the dtype of both, computed in double precision, piece by piece, so that nothing leaves the cache between."""
    pieces = [slice(a, a + PIECE) for a in range(0, len(first), PIECE)]
    generator, direction = np.random.default_rng(SEED), np.empty(len(first), np.float32)
    found = np.empty_like(first)
    # summed by numpy itself: BLAS adds in another order where it has other threads, as another process may
    far = drawn = 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # of a run that diverged
        for piece in pieces:
            generator.standard_normal(out=direction[piece], dtype=np.float32)
            drawn += np.square(direction[piece], dtype=np.float64).sum()
            far += np.square(np.subtract(last[piece], first[piece], dtype=np.float64)).sum()
        size = np.sqrt(np.float64(far) / drawn)
        for piece in pieces:
            found[piece] = first[piece] + direction[piece].astype(np.float64) * size
    return found


def _weighted_mean(trace: Trace, rows: Array, weights: Array, columns: slice, add: Add, verify: bool) -> Array:
    """Σ w_i x_i over rows of the trace in their order: how the trace is cut into chunks does not matter."""
    total = np.zeros(trace.parameters)
    first, last, _ = columns.indices(trace.parameters)
    start, stop = int(rows[0]), int(rows[-1]) + 1
    of_row = np.zeros(stop - start)
    of_row[rows - start] = weights
    at = 0
    for found in _rows(trace, start, stop, verify):
        add(found, of_row[at : at + len(found)], first, last, total)
        at += len(found)
    return total


def _last_of_run(trace: Trace, run_id: str, verify: bool) -> Array:
    other = Trace(trace.path.parent / check_run_id(run_id))
    shapes, expected = ([(b.name, b.shape) for b in each.blocks] for each in (other, trace))
    there = np.flatnonzero(_numbers(other.records(), "has_x"))
    if shapes != expected or not len(there):
        found = f"records {other.parameters} numbers in {len(shapes)} tensors and {len(there)} points"
        raise UsageError(
            f"reference run:{run_id}: {found}; expected the {len(expected)} tensors of {trace.run_id}, "
            f"{trace.parameters} numbers, and a point. Name a run of the same model."
        )
    return point(other, int(there[-1]), verify)


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
