"""The file of a chunk's minibatches: appended to, sealed by a new name, verified step by step."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy.typing as npt
import xxhash

from tracer.errors import FormatError
from tracer.store.chunk import Chunk
from tracer.store.files import pwrite, sync, sync_directory
from tracer.store.layout import BATCHES, OPEN, Bytes, chunk_name, digest
from tracer.store.minibatch import ALIGN, Message, MicroBatch, decode

Array = npt.NDArray[Any]

FIRST = b"lemmata batches\n".ljust(ALIGN, b"\0")  # of every such file


class BatchWriter:
    """The minibatches of the open chunk ``number``; ``end`` is where those of the acknowledged steps end.

    Raises:
        OSError: the file cannot be made or written.
    """

    def __init__(self, directory: Path, number: int) -> None:
        self.path = directory / (chunk_name(number, BATCHES) + OPEN)
        self.end = len(FIRST)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            pwrite(self._file, FIRST, 0)
        except BaseException:
            self.discard()
            raise

    def write(self, message: Message, at: int) -> tuple[int, int]:
        """Write the message of one step at ``at``; its hash (0 if there is none) and its end, for the commit record."""
        state = xxhash.xxh3_64()
        for piece in message:
            state.update(piece)
            pwrite(self._file, piece, at)
            at += memoryview(piece).nbytes
        return (state.intdigest() if message else 0), at

    def flush(self) -> None:
        """Bring it to the disk."""
        sync(self._file)

    def seal(self) -> None:
        """Give the file its final name, the same bytes in it; a chunk that is still open finds it under either name."""
        _seal(self.path, self._file, self.end)
        self.close()

    def discard(self) -> None:
        """Close the file and remove it."""
        self.close()
        self.path.unlink()

    def close(self) -> None:
        """Close the file and leave it as it is."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


class BatchReader:
    """Reads the minibatches of a chunk, each verified before it is believed. A context manager.

    Raises:
        FormatError: the file is missing or cut off, or is not the chunk's.
    """

    def __init__(self, chunk: Chunk) -> None:
        self._chunk = chunk
        self.path, self._file = _open(chunk)
        size = os.fstat(self._file).st_size
        try:
            self._borders = borders(chunk.commits)
            if os.pread(self._file, len(FIRST), 0) != FIRST:
                raise ValueError("it does not begin as a file of minibatches does")
            if size < self._borders[-1] or (chunk.sealed and size > self._borders[-1]):
                raise ValueError(f"{size} bytes long; {chunk.path.name} says {self._borders[-1]}")
        except (ValueError, OSError) as error:
            self.close()
            raise self._broken(error) from None

    @property
    def end(self) -> int:
        """Where the last acknowledged step ends."""
        return self._borders[-1]

    def read(self, row: int) -> list[MicroBatch]:
        """The micro-batches of the chunk's row ``row``; none if the step has none.

        Raises:
            FormatError: the hash does not match the data.
        """
        start, end = self._borders[row], self._borders[row + 1]
        raw = _read(self._file, end - start, start)
        try:
            if len(raw) != end - start or (raw and digest(raw) != int(self._chunk.commits["batches"][row])):
                raise ValueError("the hash does not match the data")
            return decode(raw)
        except ValueError as error:
            raise self._broken(f"step {int(self._chunk.steps[row])}: {error}") from None

    def pieces(self, size: int) -> Iterator[bytes]:
        """The file up to its last acknowledged step, not verified, ``size`` bytes at a time.

        Raises:
            ValueError: the file became shorter since it was opened.
        """
        for at in range(0, self.end, size):
            count = min(size, self.end - at)
            piece = _read(self._file, count, at)
            if len(piece) < count:
                raise ValueError("became shorter while it was read")
            yield piece

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _broken(self, found: object) -> FormatError:
        return FormatError(f"{self.path}: {found}. Restore this file from a copy; vectors are not affected.")


class Passing:
    """Compares a file of minibatches that comes in pieces, from front to end, with the commit records.

    Raises:
        ValueError: the commit records are not sound, or (in :meth:`update`) a message does not match its hash.
    """

    def __init__(self, commits: Array) -> None:
        ends = borders(commits)
        self.size = ends[-1]
        hashes = [digest(FIRST), *map(int, commits["batches"])]
        names = ["the beginning", *(f"the minibatch of step {int(s) - 1}" for s in commits["step"])]
        parts = zip(ends, hashes, names, strict=True)
        self._parts = [p for i, p in enumerate(parts) if i == 0 or ends[i] > ends[i - 1]][::-1]
        self._at, self._state = 0, xxhash.xxh3_64()

    def update(self, piece: Bytes) -> None:
        """The next piece."""
        view = memoryview(piece).cast("B")
        while len(view):
            if not self._parts:
                raise ValueError(f"there are bytes behind byte {self.size}, where minibatches end")
            end, expected, name = self._parts[-1]
            own, view = view[: end - self._at], view[end - self._at :]
            self._state.update(own)
            self._at += len(own)
            if self._at == end:
                if self._state.intdigest() != expected:
                    raise ValueError(f"{name} does not match its hash")
                self._parts.pop()
                self._state = xxhash.xxh3_64()


def borders(commits: Array) -> list[int]:
    """Where messages begin and end: message ``i`` is ``[found[i], found[i + 1])``; ``n + 1`` numbers for ``n`` commits.

    Raises:
        ValueError: they do not follow each other.
    """
    found = [len(FIRST), *map(int, commits["batches_end"])]
    lies = [i for i in range(1, len(found)) if found[i] < found[i - 1] or found[i] % ALIGN]
    lies += [i + 1 for i, h in enumerate(commits["batches"]) if (found[i] == found[i + 1]) != (not h)]
    if lies:
        raise ValueError(f"step {int(commits['step'][lies[0] - 1]) - 1}: its minibatch has an impossible place")
    return found


def unsound(chunk: Chunk) -> Iterator[tuple[Path, str, str]]:
    """Read every minibatch of a chunk and yield file, place and finding wherever one is not sound."""
    try:
        with BatchReader(chunk) as reader:
            for row in range(len(chunk.steps)):
                try:
                    reader.read(row)
                except FormatError as error:
                    yield reader.path, f"step {int(chunk.steps[row])}, minibatch", str(error)
    except FormatError as error:
        yield chunk.path.with_name(_name(chunk)), "file", str(error)


def seal_what_was_open(chunk: Chunk) -> None:
    """Seal the minibatches of a chunk that a killed process left open; nothing to do if that got so far itself.

    Raises:
        FormatError: the file is missing or cut off, or is not the chunk's.
    """
    with BatchReader(chunk) as reader:
        path, end = reader.path, reader.end
    descriptor = os.open(path, os.O_RDWR)
    try:
        _seal(path, descriptor, end)
    finally:
        os.close(descriptor)


def _seal(path: Path, descriptor: int, end: int) -> None:
    """Cut the file behind the last acknowledged step, bring it to the disk, and give it its final name."""
    os.ftruncate(descriptor, end)
    sync(descriptor)
    os.replace(path, path.with_name(path.name.removesuffix(OPEN)))
    sync_directory(path.parent)


def _read(descriptor: int, count: int, start: int) -> bytes:
    """Fewer bytes where the file ends; one call of the system reads up to 2 GiB."""
    parts, at = [], start
    while at < start + count and (part := os.pread(descriptor, start + count - at, at)):
        parts.append(part)
        at += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _name(chunk: Chunk) -> str:
    return chunk.path.name.replace(".h5", f".{BATCHES}")


def _open(chunk: Chunk) -> tuple[Path, int]:
    """A file of an open chunk may have its final name already: sealing, or a death in it, goes on step by step."""
    names = [chunk.path.with_name(_name(chunk))]
    if not chunk.sealed:
        names.append(names[0].with_name(names[0].name.removesuffix(OPEN)))
    for path in names:
        try:
            return path, os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        except PermissionError as error:
            raise FormatError(f"{path}: {error.strerror}. Make this file readable.") from None
        except OSError as error:
            raise FormatError(f"{path}: {os.strerror(error.errno or 0)}. Restore this file from a copy.") from None
    raise FormatError(f"{names[0]}: missing; it holds the chunk's minibatches. Restore this file from a copy.")
