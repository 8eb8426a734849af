"""Files that are whole or absent: write aside, sync, rename, sync the directory."""

import os
from pathlib import Path

import xxhash

from tracer.store.layout import SLICE_BYTES, Bytes, digest

PIECE = 1 << 20  # bytes per system call: the writer gives the machine back between two
ASIDE = ".aside"  # suffix of a file being written; never read


def pwrite(descriptor: int, data: Bytes, offset: int) -> None:
    """Write all of ``data`` at ``offset``, in pieces of one MiB."""
    view = memoryview(data).cast("B")
    at = os.pwrite(descriptor, view[:PIECE], offset)
    while at < len(view):
        at += os.pwrite(descriptor, view[at : at + PIECE], offset + at)


def pwrite_hashed(descriptor: int, data: Bytes, offset: int) -> list[int]:
    """Write as :func:`pwrite` does; returns the hash of each slice of :data:`SLICE_BYTES`.

    Each piece is hashed just after it is written, so that it comes into the cache once.
    """
    view = memoryview(data).cast("B")
    if len(view) <= PIECE:
        pwrite(descriptor, view, offset)
        return [digest(view)]
    hashes = []
    for begin in range(0, len(view), SLICE_BYTES):
        state = xxhash.xxh3_64()
        part = view[begin : begin + SLICE_BYTES]
        for at in range(0, len(part), PIECE):
            piece = part[at : at + PIECE]
            pwrite(descriptor, piece, offset + begin + at)
            state.update(piece)
        hashes.append(state.intdigest())
    return hashes


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
