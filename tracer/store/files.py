"""Files that are whole or absent: write aside, sync, rename, sync the directory."""

import os
from pathlib import Path

from tracer.store.layout import Bytes

PIECE = 1 << 20  # bytes per system call: the writer gives the machine back between two
ASIDE = ".aside"  # suffix of a file being written; never read


def pwrite(descriptor: int, data: Bytes, offset: int) -> None:
    """Write all of ``data`` at ``offset``, in pieces of one MiB."""
    view = memoryview(data).cast("B")
    while len(view):
        written = os.pwrite(descriptor, view[:PIECE], offset)
        view, offset = view[written:], offset + written


def sync(descriptor: int) -> None:
    """Bring the data of an open file to the disk."""
    (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(descriptor)


def sync_directory(directory: Path) -> None:
    """Make names that were created, renamed or removed in ``directory`` survive a power loss."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_aside(path: Path, data: Bytes) -> None:
    """Create or replace ``path`` at once: readers see the old bytes or the new ones, never a part."""
    aside = path.with_name(path.name + ASIDE)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        pwrite(descriptor, data, 0)
        sync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(aside, path)
    sync_directory(path.parent)


def reserve(descriptor: int, size: int) -> None:
    """Make room for ``size`` bytes, or raise OSError now, before any row is at risk."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:  # macOS: no reservation, so a full disk is noticed by the first write that does not fit
        os.ftruncate(descriptor, size)
