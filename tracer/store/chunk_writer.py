"""Writing one chunk: reserve, pwrite the rows, commit, seal. No HDF5 call per step."""

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer.store.batches import BatchWriter
from tracer.store.files import ASIDE, pwrite, pwrite_rows, reserve, sync, sync_directory, write_aside
from tracer.store.header import Header
from tracer.store.layout import OPEN, Bytes, Layout, chunk_name, digest, seal_record
from tracer.store.minibatch import Message
from tracer.store.record_messages import RecordMessages, Row
from tracer.store.skeleton import Skeleton

Rows = dict[str, npt.NDArray[np.generic]]


class Encoded(NamedTuple):
    """One step for a chunk: its record as a message and as values, and the message of its minibatch.

    ``rows`` maps stream names to vectors of shape ``(d,)``; ``batches`` is empty where the layout has no minibatches.
    """

    step: int
    message: bytes
    values: Row
    rows: Rows
    batches: Message = ()


class ChunkWriter:
    """The open chunk ``number`` of a run, for at most ``skeleton.rows`` steps.

    A step is acknowledged when :meth:`write` returns: from then on it survives the death of the process.

    Raises:
        OSError: no room for the whole chunk (in a memory file system a write says so), or another fault of the disk.
            Nothing acknowledged is touched.
    """

    def __init__(
        self, directory: Path, number: int, layout: Layout, skeleton: Skeleton, messages: RecordMessages
    ) -> None:
        self.number, self.layout, self.skeleton, self._messages = number, layout, skeleton, messages
        self.rows = 0
        self.directory = directory
        self._vectors = directory / (chunk_name(number, "h5") + OPEN)
        self._records = directory / (chunk_name(number, "arrow") + OPEN)
        self._values: list[Row] = []
        self._commits = bytearray()
        header = messages.schema.serialize()
        self._end = len(header)
        self._minibatches: BatchWriter | None = None
        # the records first: where the vectors are, their records are
        self._record_file = os.open(self._records, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            pwrite(self._record_file, header, 0)
            if layout.batches:
                self._minibatches = BatchWriter(directory, number)
            self._file = _create(self._vectors, skeleton)
        except BaseException:
            os.close(self._record_file)
            self._records.unlink()
            if self._minibatches:
                self._minibatches.discard()
            raise

    @property
    def batch_bytes(self) -> int:
        """Bytes of the minibatches so far."""
        return self._minibatches.end if self._minibatches else 0

    @property
    def room(self) -> int:
        """How many more steps fit."""
        return self.skeleton.rows - self.rows

    def write(self, steps: Sequence[Encoded]) -> None:
        """Append steps, no more than there is room for; all are acknowledged together.

        First the vectors, then the records, then the commit records of all of them: a process that dies in between has
        acknowledged as many of them as have a whole commit record, in order.
        """
        if not os.fstat(self._file).st_nlink:  # writing on would succeed, into nothing
            raise FileNotFoundError(
                errno.ENOENT, "the file was removed while it was being recorded", str(self._vectors)
            )
        header, row_bytes = self.skeleton.header, self.layout.row_bytes
        hashes = [
            pwrite_rows(self._file, [s.rows.get(stream) for s in steps], place + self.rows * row_bytes, row_bytes)
            for stream, place in header.streams.items()
        ]
        pwrite(self._record_file, b"".join([s.message for s in steps]), self._end)
        commits, end, batch_end = b"", self._end, self.batch_bytes
        for i, step in enumerate(steps):
            end += len(step.message)
            written = self._minibatches.write(step.batches, batch_end) if self._minibatches else ()
            batch_end = written[-1] if written else 0
            commits += self.layout.commit_record(step.step, digest(step.message), end, [h[i] for h in hashes], written)
        pwrite(self._file, commits, header.commit + self.rows * self.layout.commit.itemsize)
        self._commits += commits
        self._values += [s.values for s in steps]
        self._end = end
        if self._minibatches:
            self._minibatches.end = batch_end
        self.rows += len(steps)

    def flush(self) -> None:
        """Bring every acknowledged step to the disk, so that it survives a power loss too."""
        if self._minibatches:
            self._minibatches.flush()
        sync(self._record_file)
        sync(self._file)

    def seal(self, smaller: Skeleton | None = None) -> Path:
        """Make the chunk final and return its path; ``smaller`` is a skeleton for exactly the rows there are.

        The sealed record file comes first and the vectors' rename last, so at any moment one whole chunk is readable.
        """
        records = record_file(self._messages.table(self._values))
        write_aside(self.directory / chunk_name(self.number, "arrow"), records)
        if self._minibatches:
            self._minibatches.seal()
        seal = seal_record(self.rows, digest(self._commits), digest(records))
        path = self.directory / chunk_name(self.number, "h5")
        if smaller is None:
            pwrite(self._file, seal, self.skeleton.header.seal)
            sync(self._file)
            os.replace(self._vectors, path)
        else:
            self._shrink(smaller, seal, path)
        sync_directory(self.directory)
        self.abandon()
        self._vectors.unlink(missing_ok=True)
        self._records.unlink(missing_ok=True)
        return path

    def abandon(self) -> None:
        """Close the files and leave them as they are; acknowledged steps stay readable."""
        for descriptor in (self._file, self._record_file):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._record_file = -1
        if self._minibatches:
            self._minibatches.close()

    def discard(self) -> None:
        """Remove a chunk that holds no step."""
        if self.rows:
            raise ValueError(f"{self._vectors} holds {self.rows} acknowledged steps and is not removed")
        self.abandon()
        self._vectors.unlink()
        self._records.unlink()
        if self._minibatches:
            self._minibatches.discard()

    def _shrink(self, smaller: Skeleton, seal: bytes, path: Path) -> None:
        shrink(self._file, self.skeleton.header, smaller, self._commits, seal, path)


def shrink(source: int, header: Header, smaller: Skeleton, commits: Bytes, seal: bytes, path: Path) -> None:
    """Write the sealed file ``path`` with the first ``smaller.rows`` rows of an open one, whole or not at all."""

    def fill(target: int) -> None:
        for stream, place in smaller.header.streams.items():
            _copy(source, target, header.streams[stream], place, smaller.rows * header.layout.row_bytes)
        pwrite(target, commits, smaller.header.commit)
        pwrite(target, seal, smaller.header.seal)
        sync(target)

    os.close(_create(path, smaller, fill))


def _create(path: Path, skeleton: Skeleton, fill: Callable[[int], None] = lambda descriptor: None) -> int:
    """A new file that is a whole chunk file from the moment it has its name; returns its descriptor."""
    aside = path.with_name(path.name + ASIDE)
    descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        reserve(descriptor, skeleton.header.size)
        for offset, piece in skeleton.pieces:
            pwrite(descriptor, piece, offset)
        fill(descriptor)
        os.rename(aside, path)
    except BaseException:
        os.close(descriptor)
        aside.unlink(missing_ok=True)
        raise
    return descriptor


def _copy(source: int, target: int, start: int, to: int, count: int) -> None:
    piece = 8 << 20
    for at in range(0, count, piece):
        pwrite(target, os.pread(source, min(piece, count - at), start + at), to + at)


def record_file(table: pa.Table) -> bytes:
    """Bytes of a sealed record file."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]
