"""Files that are whole or absent: write aside, sync, rename, sync the directory."""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import xxhash

from tracer.store.layout import SLICE_BYTES, Bytes, digest

PIECE = 1 << 20  # bytes per system call at most: the writer gives the machine back between two
TOGETHER = 512  # buffers per system call at most; POSIX promises 16, Linux and macOS take 1,024
MOUNTS = Path("/proc/self/mountinfo")  # Linux; see proc_pid_mountinfo(5)
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

    Short rows go together, since between two system calls other threads take the interpreter.
    """
    whole = [row for row in rows if row is not None]
    if 1 < len(rows) == len(whole) and 2 * row_bytes <= PIECE and hasattr(os, "pwritev"):
        _pwrite_together(descriptor, whole, offset)
        return [[digest(row)] for row in whole]
    return [
        None if row is None else pwrite_hashed(descriptor, row, offset + i * row_bytes) for i, row in enumerate(rows)
    ]


def _pwrite_together(descriptor: int, rows: Sequence[Bytes], offset: int) -> None:
    """Write rows one behind the other in pieces as :func:`pwrite`'s, each of them one system call."""
    parts: list[memoryview] = []
    end = offset
    for row in rows:
        view = memoryview(row).cast("B")
        while len(view):
            part = view[: _piece(end)]
            parts.append(part)
            end += len(part)
            view = view[len(part) :]
            if end % PIECE == 0 or len(parts) == TOGETHER:
                offset = _pwrite_parts(descriptor, parts, offset)
                parts = []
    if parts:
        _pwrite_parts(descriptor, parts, offset)


def _pwrite_parts(descriptor: int, parts: Sequence[memoryview], offset: int) -> int:
    """Where the parts end that are written from ``offset`` on, in one system call if it takes them all."""
    end = offset + sum(map(len, parts))
    if os.pwritev(descriptor, parts, offset) < end - offset:  # a full disk, or a signal: one by one says which
        for part in parts:
            pwrite(descriptor, part, offset)
            offset += len(part)
    return end


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
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)  # on a full disk its room is wanted
        raise
    finally:
        os.close(descriptor)
    sync_directory(path.parent)


def reserve(descriptor: int, size: int) -> None:
    """Make room for ``size`` bytes, or raise OSError now, before any row is at risk.

    In a memory file system there is nothing to keep together, taking pages twice costs a writer 4 % of its speed, and a
    write that finds no page fails as cleanly. So there the file only gets its length.
    """
    if hasattr(os, "posix_fallocate") and not _in_memory(os.fstat(descriptor).st_dev):
        os.posix_fallocate(descriptor, 0, size)
    else:  # on macOS, too, a full disk is noticed by the first write that does not fit
        os.ftruncate(descriptor, size)


@cache
def _in_memory(device: int) -> bool:
    """Whether the file system of this device number is Linux's ``tmpfs``."""
    mounted = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = MOUNTS.read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any(mounted in line.split()[:3] and " - tmpfs " in line for line in mounts)
