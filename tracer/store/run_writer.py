"""Writing a run: one directory, one writer, chunk after chunk. Knows nothing of torch or threads."""

import datetime
import fcntl
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from tracer.errors import RecordingError, UsageError
from tracer.store.chunk_writer import ChunkWriter, Rows
from tracer.store.layout import MANIFEST, MAX_ROW_BYTES, MAX_ROWS, chunk_number, record_schema
from tracer.store.manifest import Manifest, write_manifest
from tracer.store.skeleton import Skeleton, build

CHUNK_BYTES = 128 << 20


@dataclass(frozen=True)
class Lock:
    """The right to write into a run directory; the kernel takes it back when the process dies."""

    descriptor: int

    @classmethod
    def take(cls, directory: Path) -> "Lock":
        """Take it, or raise :class:`UsageError` if another process is recording into ``directory``."""
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise UsageError(
                f"{directory}: another process is recording into this run. Choose another run id, or stop it first."
            ) from None
        return cls(descriptor)

    def release(self) -> None:
        """Give it back."""
        os.close(self.descriptor)


def being_written(directory: Path) -> bool:
    """Whether a living process holds the :class:`Lock` of this run."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


class RunWriter:
    """Appends steps to a new run directory.

    Args:
        directory: of the run; made if absent, refused if it holds a run already.
        manifest: what the run is; its ``attempts`` and ``ended`` are kept up to date here.
        chunk_bytes: a chunk is sealed when its vectors fill about this many bytes.

    Raises:
        UsageError: the directory holds a run or foreign files, or another process writes into it.
        OSError: the directory cannot be made or written.
    """

    def __init__(self, directory: Path, manifest: Manifest, chunk_bytes: int = CHUNK_BYTES) -> None:
        layout = manifest.layout
        if layout.row_bytes > MAX_ROW_BYTES:
            raise UsageError(
                f"{directory}: one vector has {layout.row_bytes} bytes; the format holds up to {MAX_ROW_BYTES}. "
                "Record fewer blocks."
            )
        self.directory, self.layout = directory, layout
        self.schema = record_schema(manifest.hyperparameters)
        self.steps = 0
        self.last_step: int | None = None
        self._rows = max(1, min(MAX_ROWS, 4096, chunk_bytes // layout.step_bytes))
        self._skeletons: dict[int, Skeleton] = {}
        self._chunk: ChunkWriter | None = None
        self._next = 0
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = Lock.take(directory)
        try:
            _refuse_occupied(directory)
            start = {"attempt": 1, "started": now(), "process": os.getpid(), "first_step": 0}
            self.manifest = manifest.with_(attempts=(start,))
            write_manifest(directory, self.manifest)
            self._skeleton(self._rows)
        except BaseException:
            self._lock.release()
            raise

    def append(self, step: int, record: Mapping[str, Any], rows: Rows) -> None:
        """Record one step; it is acknowledged, and survives the process, when this returns.

        Args:
            step: larger than every step before it.
            record: values for the record schema's columns other than ``step``; a missing column is null.
            rows: stream name to vector of shape ``(d,)`` in the run's dtype, C-contiguous.

        Raises:
            RecordingError: the disk refused; everything acknowledged so far is intact.
        """
        if self.last_step is not None and step <= self.last_step:
            raise UsageError(f"{self.directory}: step {step} after step {self.last_step}; steps must increase.")
        batch = self._batch(step, record)
        try:
            if self._chunk is None:
                self._chunk = ChunkWriter(
                    self.directory, self._next, self.layout, self._skeleton(self._rows), self.schema
                )
                self._next += 1
            self._chunk.write(step, batch, rows)
            self.steps += 1
            self.last_step = step
            if self._chunk.full:
                self.seal()
        except OSError as error:
            raise RecordingError(
                f"{self.directory}: step {step} could not be recorded: {error.strerror or error}. "
                f"The {self.steps} steps before it are safe. Make room or mend the disk, then record again."
            ) from error

    def update(self, **changes: Any) -> None:
        """Rewrite the manifest with some fields changed."""
        self.manifest = self.manifest.with_(**changes)
        write_manifest(self.directory, self.manifest)

    def flush(self) -> None:
        """Make every acknowledged step survive a power loss."""
        if self._chunk is not None:
            self._chunk.flush()

    def seal(self) -> None:
        """Seal the open chunk, if it holds any step."""
        chunk, self._chunk = self._chunk, None
        if chunk is None:
            return
        if chunk.rows == 0:
            chunk.discard()
            return
        chunk.seal(None if chunk.full else self._skeleton(chunk.rows))

    def close(self, reason: str, **details: Any) -> None:
        """Seal what is open, write into the manifest why recording ended, and let go of the directory.

        The manifest's ``ended`` gets ``reason``, the time, the number of steps and chunks, and ``details``.
        """
        if self._lock.descriptor < 0:
            return
        try:
            self.seal()
            ended = {"reason": reason, "time": now(), "steps": self.steps, "chunks": self._next, **details}
            self.update(ended=ended)
        finally:
            if self._chunk is not None:
                self._chunk.abandon()
            self._lock.release()
            self._lock = Lock(-1)

    def _batch(self, step: int, record: Mapping[str, Any]) -> pa.RecordBatch:
        unknown = set(record) - set(self.schema.names)
        if unknown:
            raise UsageError(f"step record has unknown columns {sorted(unknown)}; known are {self.schema.names}.")
        values = {**record, "step": step}
        return pa.RecordBatch.from_arrays(
            [pa.array([values.get(field.name)], field.type) for field in self.schema], schema=self.schema
        )

    def _skeleton(self, rows: int) -> Skeleton:
        if rows not in self._skeletons:
            self._skeletons = {
                r: s for r, s in self._skeletons.items() if r == self._rows
            }  # the usual one and the last odd one
            self._skeletons[rows] = build(self.layout, rows, self.manifest.run_id, len(self.manifest.attempts))
        return self._skeletons[rows]


def now() -> str:
    """The time as an ISO 8601 text in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _refuse_occupied(directory: Path) -> None:
    for name in sorted(os.listdir(directory)):
        if name == MANIFEST or chunk_number(name):
            raise UsageError(
                f"{directory}: holds a recorded run already; recorded data are never overwritten. "
                "Choose another run id, or remove the directory yourself."
            )
        raise UsageError(f"{directory}: holds {name!r}, which is no part of a run. Choose an empty directory.")
