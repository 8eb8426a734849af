"""Reference points to replay at: the same that the geometry has pairs with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tracer.errors import UsageError
from tracer.replay.source import Source
from tracer.store.layout import digest
from tracer.store.points import epoch_ends, find, label, point

Array = npt.NDArray[Any]


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
    """The wanted reference points, names as in :data:`tracer.store.points.REFERENCES`.

    Raises:
        UsageError: a name is not known, or the run has no such point.
        FormatError: a file is damaged or missing.
    """
    return [_reference(source, name) for name in dict.fromkeys(wanted)]


def _reference(source: Source, name: str) -> Reference:
    trace, records = source.trace, source.trace.records()
    if name == "epoch_last":
        found: dict[int | None, Array] = {e: point(trace, row) for e, (row, _) in epoch_ends(records).items()}
    else:
        one = find(trace, records, name)
        found = {} if one is None else {None: one}
    if not found:
        lacks = {"epoch_last": "epochs were", "best_loss": "loss was"}.get(name, "point was")
        raise UsageError(f"{trace.path}: has no reference {name!r}: no {lacks} recorded.")
    return Reference(label(name), {epoch: np.asarray(at, trace.manifest.dtype) for epoch, at in found.items()})
