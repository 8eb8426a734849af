"""Files that are whole or absent: write aside, sync, rename, sync the directory."""

import os
from collections.abc import Sequence
from pathlib import Path

import xxhash

from tracer.store.layout import SLICE_BYTES, Bytes, digest

PIECE = 1 << 20  # bytes per system call at most: the writer gives the machine back between two
ASIDE = ".aside"  # suffix of a file being written; never read


def pwrite(descriptor: int, data: Bytes, offset: int) -> None:
    """Write all of ``data`` at ``offset``, in pieces that end at multiples of a MiB of the file.

    The page cache keeps a file in runs of pages as long as the writes were, where they were aligned. Short runs cost a
    third of the writing speed, and most of the time in which a reader maps the file.
    """
    view, at = memoryview(data), 0
    if view.nbytes <= PIECE - offset % PIECE:
        at = os.pwrite(descriptor, view, offset)
        if at == view.nbytes:
            return
    view = view.cast("B")
    while at < len(view):
        at += os.pwrite(descriptor, view[at : at + _piece(offset + at)], offset + at)


def pwrite_hashed(descriptor: int, data: Bytes, offset: int) -> list[int]:
    """Write as :func:`pwrite` does; returns the hash of each slice of :data:`SLICE_BYTES`.

    Each piece is hashed just after it is written, so that it comes into the cache once.
    """
    view = memoryview(data)
    size = view.nbytes
    if size <= PIECE:
        pwrite(descriptor, view, offset)
        return [digest(view)]
    view = view.cast("B")
    hashes = []
    for begin in range(0, size, SLICE_BYTES):
        end, at, state = min(begin + SLICE_BYTES, size), begin, xxhash.xxh3_64()
        while at < end:
            piece = view[at : min(at + _piece(offset + at), end)]
            pwrite(descriptor, piece, offset + at)
            state.update(piece)
            at += len(piece)
        hashes.append(state.intdigest())
    return hashes


def pwrite_rows(descriptor: int, rows: Sequence[Bytes | None], offset: int, row_bytes: int) -> list[list[int] | None]:
    """Write rows of ``row_bytes`` bytes one behind the other, leaving out those that are None; their hashes by slice.

    Short rows go in one system call, and between system calls other threads take the interpreter.
    """
    whole, together = [row for row in rows if row is not None], len(rows) * row_bytes
    possible = 1 < len(rows) == len(whole) and together <= _piece(offset) and hasattr(os, "pwritev")
    if possible and os.pwritev(descriptor, whole, offset) == together:
        return [[digest(row)] for row in whole]
    return [
        None if row is None else pwrite_hashed(descriptor, row, offset + i * row_bytes) for i, row in enumerate(rows)
    ]


def _piece(offset: int) -> int:
    """Bytes from ``offset`` to the next multiple of :data:`PIECE`."""
    return PIECE - offset % PIECE


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
