"""What was read of a file or of a run, kept in this process for as long as they stay as they were.

Sixty assets of a run ask what its geometry was computed from, and each of them asks again before it writes.
"""

import os
import stat
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TypeVar

from analysis.remote import is_local

SETTLED = 2.0  # seconds: of a run that was written to just now, a clock's tick may hide what is written next
MOST = 1024  # files of which something is kept
Mark = tuple[tuple[str, int, int, int], ...]
Kept = TypeVar("Kept")


def kept(read: Callable[[Path], Kept]) -> Callable[[Path], Kept]:
    """``read``, called again only when the file, or a file in the directory, is another than at the last call.

    A file is another if it was replaced (a new inode), grew, or was written to. On an object store nothing is kept.
    """
    known: dict[Path, tuple[Mark, Kept]] = {}

    @wraps(read)
    def unless_kept(path: Path) -> Kept:
        if not is_local(path):
            return read(path)
        mark = _mark(path)  # before reading: what is written meanwhile is seen the next time
        if mark is not None and path in known and known[path][0] == mark:
            return known[path][1]
        found = read(path)
        known.pop(path, None)
        if mark is not None:
            known[path] = mark, found
            if len(known) > MOST:
                del known[next(iter(known))]
        return found

    return unless_kept


def _mark(path: Path) -> Mark | None:
    """What changes when something is written; None of a run that has not settled, or of what is not there."""
    try:
        found = path.stat()
        if not stat.S_ISDIR(found.st_mode):
            return (_of("", found),)
        with os.scandir(path) as entries:
            inside = tuple(sorted(_of(entry.name, entry.stat()) for entry in entries))
    except OSError:
        return None
    newest = max((mark[-1] for mark in inside), default=0)
    return inside if newest < (time.time() - SETTLED) * 1e9 else None


def _of(name: str, found: os.stat_result) -> tuple[str, int, int, int]:
    return name, found.st_ino, found.st_size, found.st_mtime_ns
