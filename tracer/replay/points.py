"""Reference points of a run, the same to the last bit as those that the geometry has pairs with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tracer.errors import FormatError, UsageError
from tracer.replay.source import Source
from tracer.store import Trace
from tracer.store.home import check_run_id
from tracer.store.layout import digest

Array = npt.NDArray[Any]
REFERENCES = ("last", "tail_mean", "ema", "epoch_last", "best_loss", "initial", "random")
EMA, TAIL, SEED = 0.999, 10, 20240701


@dataclass(frozen=True)
class Reference:
    """A point y_t for each step t: the same one, or one for each epoch.

    Args:
        name: as in the column ``pairing``, behind ``reference:``.
        vectors: epoch to point, shape ``(d,)``; one entry, None, where there is one point.
    """

    name: str
    vectors: dict[int | None, Array]

    def of(self, epoch: int | None) -> Array | None:
        """The point for a step of ``epoch``."""
        return self.vectors.get(None, self.vectors.get(epoch))

    @property
    def fingerprint(self) -> str:
        """Of the numbers: equal points give equal texts."""
        return "-".join(f"{digest(vector):016x}" for vector in self.vectors.values())


def references(source: Source, wanted: Sequence[str]) -> list[Reference]:
    """The wanted reference points.

    ``last``; ``tail_mean`` (of the last tenth of the points); ``ema`` (factor 0.999, corrected for its start);
    ``epoch_last`` (of each step's own epoch); ``best_loss`` (of one minibatch); ``initial``; ``random`` (as far from
    the first point as the last is); ``run:ID`` (the last point of another run beside this one); ``point:FILE`` (.npy).

    Raises:
        UsageError: a name is not known, or the run has no such point.
        FormatError: a file is damaged or missing.
    """
    return [_reference(source, name) for name in dict.fromkeys(wanted)]


def _reference(source: Source, name: str) -> Reference:
    trace = source.trace
    there = np.flatnonzero(source.records["has_x"])
    kind, _, which = name.partition(":")
    if kind == "run" and which:
        return Reference(name, {None: _last_of_run(trace, which)})
    if kind == "point" and which:
        return Reference(f"point:{Path(which).stem}", {None: _from_file(trace, Path(which))})
    if name not in REFERENCES:
        raise UsageError(f"reference {name!r:.80} is not known; expected run:ID, point:FILE or one of {REFERENCES}.")
    if name == "epoch_last":
        found = {epoch: _point(source, row) for epoch, row in _epoch_ends(source).items()}
    elif name == "best_loss":
        rows = there[np.isfinite(source.records["loss"].astype(float)[there])]
        losses = source.records["loss"].astype(float)[rows]
        found = {None: _point(source, int(rows[losses.argmin()]))} if len(rows) else {}
    else:
        found = {None: _of_points(source, name, there)} if len(there) else {}
    if not found:
        lacks = {"epoch_last": "epochs were", "best_loss": "loss was"}.get(name, "point was")
        raise UsageError(f"{trace.path}: has no reference {name!r}: no {lacks} recorded.")
    return Reference(name, {epoch: point.astype(trace.manifest.dtype) for epoch, point in found.items()})


def _of_points(source: Source, name: str, there: Array) -> Array:
    first, last = int(there[0]), int(there[-1])
    if name == "random":
        start = _point(source, first)
        direction = np.random.default_rng(SEED).standard_normal(len(start), np.float32).astype(np.float64)
        distance = np.linalg.norm(np.subtract(_point(source, last), start, dtype=np.float64))
        return np.asarray(start + direction * (distance / np.linalg.norm(direction)))
    if name == "tail_mean":
        count = -(-len(there) // TAIL)
        return _weighted_mean(source, there[-count:], np.full(count, 1 / count))
    if name == "ema":
        fades = EMA ** np.arange(len(there))[::-1]  # also the share of all weights that older points have
        counts = fades > np.finfo(source.trace.manifest.dtype).eps / 8  # the others change no digit
        return _weighted_mean(source, there[counts], fades[counts] * (1 - EMA) / (1 - EMA ** len(there)))
    return _point(source, first if name == "initial" else last)


def _point(source: Source, row: int) -> Array:
    found = source.stream("x", row)
    assert found is not None
    return found


def _weighted_mean(source: Source, rows: Array, weights: Array) -> Array:
    total = np.zeros(source.trace.parameters)
    for row, weight in zip(rows.tolist(), weights.tolist(), strict=True):
        total += weight * _point(source, row).astype(np.float64)
    return total


def _epoch_ends(source: Source) -> dict[int | None, int]:
    epochs = source.records["epoch"]
    known = source.records["has_x"] & source.records["has_g"] & ~_missing(epochs)
    return {int(epochs[row]): int(row) for row in np.flatnonzero(known)}  # the last one stays


def _missing(epochs: Array) -> Array:
    """Where there is no epoch: Arrow gives floats with NaN where one is missing, and objects where all are."""
    return np.array([e is None or e != e for e in epochs.tolist()], bool)


def _last_of_run(trace: Trace, run_id: str) -> Array:
    other = Trace(trace.path.parent / check_run_id(run_id))
    shapes, expected = ([(b.name, b.shape) for b in each.blocks] for each in (other, trace))
    source = Source(other)
    there = np.flatnonzero(source.records["has_x"])
    if shapes != expected or not len(there):
        raise UsageError(
            f"reference run:{run_id}: records {other.parameters} numbers in {len(shapes)} tensors and {len(there)} "
            f"points; expected the {len(expected)} tensors of {trace.run_id}, {trace.parameters} numbers, and a point. "
            "Name a run of the same model."
        )
    return _point(source, int(there[-1])).astype(trace.manifest.dtype)


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
    return np.asarray(found, trace.manifest.dtype)
