"""What lies in a directory of runs, and in that of one run."""

import os
import stat
from pathlib import Path

from tracer.errors import FormatError
from tracer.store.files import ASIDE
from tracer.store.home import RUN_ID
from tracer.store.layout import MANIFEST, chunk_name, chunk_number


def is_run(entry: Path) -> bool:
    """Whether a directory holds a manifest, or may not be looked into: opening it as a run then says why."""
    try:
        return stat.S_ISREG(os.stat(entry / MANIFEST).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # unless it is another's: lost+found, or a run that is being restored
        return RUN_ID.fullmatch(entry.name) is not None and not entry.name.endswith(ASIDE)


def chunk_files(directory: Path) -> list[tuple[Path, bool]]:
    """Chunk files in order with whether each is sealed; a sealed file stands before its open twin.

    Raises:
        FormatError: one is missing, though later ones are there.
        OSError: the directory cannot be listed.
    """
    found: dict[int, tuple[Path, bool]] = {}
    for name in os.listdir(directory):
        parsed = chunk_number(name)
        if parsed is None or parsed[1] != "h5":
            continue
        number, _, sealed = parsed
        if sealed or number not in found:
            found[number] = (directory / name, sealed)
    missing = sorted(set(range(len(found))) - set(found))
    if missing:
        raise FormatError(f"{directory / chunk_name(missing[0])}: missing, though later chunks are there.")
    return [found[number] for number in range(len(found))]


def require_promised(directory: Path, found: int, promised: object) -> None:
    """Raise :class:`FormatError` unless a closed run has as many chunk files as its manifest says."""
    if found == promised:
        return
    more = isinstance(promised, int) and found > promised
    do = (
        "Take away those that are not of this run, or bring back the manifest that goes with them."
        if more
        else "Bring the missing ones back from where the run was copied."
    )
    raise FormatError(f"{directory}: {found} chunk files; its manifest promises {promised}. {do}")
