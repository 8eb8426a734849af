"""Going on with a run that exists: what must agree, and where the next attempt begins."""

import os
from pathlib import Path

from tracer.errors import UsageError
from tracer.store.chunk import open_chunk
from tracer.store.layout import BATCHES, MANIFEST, OPEN, chunk_name, chunk_number
from tracer.store.manifest import Manifest, read_manifest
from tracer.store.recovery import seal_what_was_open

_MUST_AGREE = ("blocks", "streams", "dtype", "hyperparameters", "batches", "data")


def refuse_occupied(directory: Path) -> None:
    """A new run needs an empty directory; raise :class:`UsageError` otherwise."""
    for name in sorted(os.listdir(directory)):
        if name == MANIFEST or chunk_number(name):
            raise UsageError(
                f"{directory}: holds a recorded run already; recorded data are never overwritten. "
                "Choose another run id, remove the directory yourself, or go on with that run by resume_at=STEP."
            )
        raise UsageError(f"{directory}: holds {name!r}, which is no part of a run. Choose an empty directory.")


def prepare(directory: Path, manifest: Manifest, resume_at: int) -> tuple[Manifest, int]:
    """Make a run ready for another attempt that begins with step ``resume_at``; the caller holds the lock.

    What the last attempt left open is sealed. A closing row with the final point gives way to the step that begins at
    that point.

    Returns:
        the run's own manifest, and the number of the next chunk.

    Raises:
        UsageError: the run differs from what would be recorded, or steps from ``resume_at`` on are recorded already.
        FormatError: the run is damaged.
    """
    found = read_manifest(directory)
    for name in _MUST_AGREE:
        if getattr(found, name) != getattr(manifest, name):
            given = {"batches": "record_batches=", "data": "data="}.get(name, "this model and optimizer")
            raise UsageError(
                f"{directory}: its {name} are not those of {given}; a run holds one training, recorded one way. "
                "Record under another run id."
            )
    names = [parsed for name in os.listdir(directory) if (parsed := chunk_number(name)) and parsed[1] == "h5"]
    numbers = sorted({number for number, _, _ in names})
    for number, _, sealed in names:
        if sealed:  # a leftover of a seal that was interrupted after its last rename
            for suffix in ("h5", "arrow", BATCHES):
                (directory / (chunk_name(number, suffix) + OPEN)).unlink(missing_ok=True)
        elif (number, "h5", True) not in names and not seal_what_was_open(directory, found, number):
            numbers.remove(number)
    if numbers:
        _refuse_overlap(directory, found, numbers[-1], resume_at)
    return found, len(numbers)


def _refuse_overlap(directory: Path, manifest: Manifest, number: int, resume_at: int) -> None:
    chunk = open_chunk(directory / chunk_name(number), manifest.layout, manifest.run_id, sealed=True)
    last, final_point = int(chunk.steps[-1]), chunk.ends_with_final_point
    if resume_at < last or (resume_at == last and not final_point):
        raise UsageError(
            f"{directory}: steps up to {last} are recorded already, and recorded data are never overwritten. To go on "
            f"from step {resume_at}, record a branch: another run id with branch_of=({manifest.run_id!r}, {resume_at})."
        )
