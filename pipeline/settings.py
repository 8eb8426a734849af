"""What ``$LEMMATA_EXECUTOR`` says; :mod:`pipeline.executors` says what may stand there."""

import os

SETTING = "LEMMATA_EXECUTOR"
DASK = "dask"


def setting() -> str:
    """What ``$LEMMATA_EXECUTOR`` says."""
    return os.environ.get(SETTING) or "in_process"


def dask_address(name: str) -> str | None:
    """The scheduler of a setting ``dask:ADDRESS``, empty for a cluster of one's own; None where it is not dask."""
    kind, _, address = name.partition(":")
    return address if kind == DASK else None
