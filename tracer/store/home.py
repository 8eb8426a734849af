"""Where runs, tables and the Dagster instance live, and what a run may be called.

Runs and the instance are directories: sealing a chunk needs a file system that can write in place and sync. Tables and
archives may be on an object store, which ``$LEMMATA_TABLES`` and ``$LEMMATA_ARCHIVES`` name by a URL.
"""

import os
import re
from pathlib import Path

from tracer.errors import UsageError
from tracer.store.places import is_url, url_path

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def home() -> Path:
    """The project's data directory: ``$LEMMATA_HOME``, or ``./lemmata-home``; absolute, not created."""
    return Path(os.environ.get("LEMMATA_HOME") or "lemmata-home").absolute()


def runs_root() -> Path:
    """Directory of recorded runs, one sub-directory each."""
    return home() / "runs"


def tables_root() -> Path:
    """Directory of computed tables and reports, one sub-directory per run: ``$LEMMATA_TABLES``, else in the home.

    Where that is a URL it is not a ``Path`` but a ``UPath``, with the same methods.

    Raises:
        UsageError: the URL is not one of an object store, or what opens it is not installed.
    """
    given = os.environ.get("LEMMATA_TABLES")
    if not given:
        return home() / "tables"
    return url_path(given, "LEMMATA_TABLES") if is_url(given) else Path(given).absolute()


def archives_root() -> Path | None:
    """Directory of archives, each ``RUN.lemmata``: ``$LEMMATA_ARCHIVES``, perhaps a URL; None where it is not set.

    Raises:
        UsageError: as :func:`tables_root`.
    """
    given = os.environ.get("LEMMATA_ARCHIVES")
    if not given:
        return None
    return url_path(given, "LEMMATA_ARCHIVES") if is_url(given) else Path(given).absolute()


def scratch_root() -> Path:
    """Directory for what is kept for as long as it takes."""
    return home() / "scratch"


def cache_root() -> Path:
    """Directory for what can be fetched or computed again: safe to remove while nothing runs."""
    return home() / "cache"


def dagster_home() -> Path:
    """Directory of the Dagster instance."""
    return home() / "dagster"


def check_run_id(run_id: str) -> str:
    """Return ``run_id``; raise :class:`UsageError` unless it is safe as a file name and a partition key."""
    if not RUN_ID.fullmatch(run_id) or ".." in run_id:
        raise UsageError(
            f"run id {run_id!r}: expected 1 to 200 letters, digits, '.', '_' or '-', starting with a letter or "
            "digit and without '..'. Choose another name."
        )
    return run_id


def resolve_run(run: str | os.PathLike[str]) -> Path:
    """Directory of a run: a bare name lies under :func:`runs_root`, anything with a separator is a path.

    Raises:
        UsageError: the last part of the path is no valid run id.
    """
    text = os.fspath(run)
    path = Path(text).absolute() if os.sep in text else runs_root() / check_run_id(text)
    check_run_id(path.name)
    return path
