"""Archived runs as partitions: what ``$LEMMATA_ARCHIVES`` holds is restored when it is asked for.

The runs' directory is the cache: a restored run is the run it was, to the last bit. Who needs the room removes the
directory; it comes back when its vectors are needed.
"""

from pathlib import Path

from tracer.errors import FormatError, UsageError
from tracer.store import home, runs
from tracer.store.places import reached, require_root
from tracer.store.restore import read_head, restore

SUFFIX = ".lemmata"


def archived() -> dict[str, str]:
    """Archives by the name of their file, which is the run's: path or URL of each; empty where no root is set.

    A file with a name that no run can have is left out.

    Raises:
        UsageError: the root is no directory, or cannot be reached.
    """
    root = home.archives_root()
    if root is None:
        return {}
    require_root(root, "LEMMATA_ARCHIVES")
    with reached(str(root)):
        paths = sorted(root.iterdir(), key=str)
    found = {}
    for path in paths:
        name = path.name.removesuffix(SUFFIX)
        if path.name != name and home.RUN_ID.fullmatch(name) and ".." not in name:
            found[name] = str(path)
    return found


def known() -> list[str]:
    """Every run there is: recorded here, or archived."""
    return sorted({path.name for path in runs(home.runs_root())} | archived().keys())


def is_archived(run_id: str) -> bool:
    """Whether there is an archive of a run; asks for one file, where :func:`archived` lists them all."""
    root = home.archives_root()
    return root is not None and (root / f"{run_id}{SUFFIX}").is_file()


def here(run_id: str) -> Path:
    """Directory of a run, restored from its archive if it is not there; a run that nobody has is not there either.

    Raises:
        FormatError: the archive is damaged, or is that of another run.
        UsageError: there is no room, or the archives cannot be reached.
    """
    path = home.runs_root() / run_id
    if path.exists() or home.archives_root() is None:
        return path
    place = archived().get(run_id)
    if place is None:
        return path
    if (found := read_head(place).run_id) != run_id:
        raise FormatError(f"{place}: this is the archive of {found!r}. Give the file the name of its run.")
    try:
        restore(place)
    except UsageError:
        if not path.exists():  # else another process was faster
            raise
    return path
