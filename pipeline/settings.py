"""What ``$LEMMATA_EXECUTOR`` and ``$LEMMATA_BACKFILL`` say; :mod:`pipeline.executors` says what the first may be."""

import os

from tracer.errors import UsageError

SETTING = "LEMMATA_EXECUTOR"
DASK = "dask"
BACKFILL = "LEMMATA_BACKFILL"
TOGETHER = 50  # a process takes seconds to start and a metric of a run less than one; 200 runs use four processes


def setting() -> str:
    """What ``$LEMMATA_EXECUTOR`` says."""
    return os.environ.get(SETTING) or "in_process"


def dask_address(name: str) -> str | None:
    """The scheduler of a setting ``dask:ADDRESS``, empty for a cluster of one's own; None where it is not dask."""
    kind, _, address = name.partition(":")
    return address if kind == DASK else None


def together() -> int:
    """How many recorded runs one Dagster run of a backfill computes: what ``$LEMMATA_BACKFILL`` says.

    Raises:
        UsageError: it is no number of runs.
    """
    given = os.environ.get(BACKFILL) or str(TOGETHER)
    if not given.isdecimal() or not int(given):
        raise UsageError(f"{BACKFILL}={given}: expected how many runs are computed together, such as 50.")
    return int(given)
