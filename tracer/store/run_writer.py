"""Writing a run: one directory, one writer, chunk after chunk. Knows nothing of torch or threads."""

import datetime
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tracer.errors import RecordingError, UsageError
from tracer.store import continuation
from tracer.store.chunk_writer import ChunkWriter, Encoded, Rows
from tracer.store.layout import MAX_ROW_BYTES, MAX_ROWS, record_schema
from tracer.store.lock import Lock
from tracer.store.manifest import Manifest, write_manifest
from tracer.store.minibatch import Message
from tracer.store.record_messages import RecordMessages
from tracer.store.skeleton import Skeleton, build

CHUNK_BYTES = 128 << 20
CHUNK_SECONDS = 600.0


class Step(NamedTuple):
    """What :meth:`RunWriter.append` takes."""

    step: int
    record: Mapping[str, Any]
    rows: Rows
    batches: Message = ()


class RunWriter:
    """Appends steps to a run directory.

    Args:
        directory: of the run; made if absent, refused if it holds a run already.
        manifest: what the run is; its ``attempts`` and ``ended`` are kept up to date here.
        chunk_bytes: a chunk is sealed when its vectors fill about this many bytes, or its minibatches as many
            and 128 MiB.
        resume_at: go on with the run that is there, from this step on; nothing recorded is overwritten.
        chunk_seconds: a chunk is sealed at this age, too, when the next step is written.

    Raises:
        UsageError: the directory holds a run or foreign files, or another process writes into it.
        OSError: the directory cannot be made or written.
    """

    def __init__(
        self,
        directory: Path,
        manifest: Manifest,
        chunk_bytes: int = CHUNK_BYTES,
        resume_at: int | None = None,
        chunk_seconds: float = CHUNK_SECONDS,
    ) -> None:
        layout = manifest.layout
        if layout.row_bytes > MAX_ROW_BYTES:
            raise UsageError(
                f"{directory}: one vector has {layout.row_bytes} bytes; the format holds up to {MAX_ROW_BYTES}. "
                "Record fewer blocks."
            )
        self.directory, self.layout = directory, layout
        self._messages = RecordMessages(record_schema(manifest.hyperparameters))
        self._streams = frozenset(layout.streams)
        self._batch_bytes = max(chunk_bytes, CHUNK_BYTES)
        self.steps = 0
        self.last_step: int | None = None
        self._rows = max(1, min(MAX_ROWS, 4096, chunk_bytes // layout.step_bytes))
        self._skeletons: dict[int, Skeleton] = {}
        self._chunk: ChunkWriter | None = None
        self._next = 0
        self._chunk_seconds, self._chunk_began = chunk_seconds, 0.0
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = Lock.take(directory)
        try:
            if resume_at is None:
                continuation.refuse_occupied(directory)
            else:
                manifest, self._next = continuation.prepare(directory, manifest, resume_at)
                self.last_step = resume_at - 1
            number = len(manifest.attempts) + 1
            start = {"attempt": number, "started": now(), "process": os.getpid(), "first_step": resume_at or 0}
            self.manifest = manifest.with_(attempts=(*manifest.attempts, start), ended=None)
            write_manifest(directory, self.manifest)
            self._skeleton(self._rows)
        except BaseException:
            self._lock.release()
            raise

    def append(self, step: int, record: Mapping[str, Any], rows: Rows, batches: Message = ()) -> None:
        """Record one step; it is acknowledged, and survives the process, when this returns.

        Args:
            step: larger than every step before it.
            record: values for the record schema's columns other than ``step``; a missing column is null.
            rows: stream name to vector of shape ``(d,)`` in the run's dtype, C-contiguous.
            batches: the message of the step's minibatch (:func:`tracer.store.minibatch.encode`), where the manifest
                says that minibatches are recorded.

        Raises:
            RecordingError: the disk refused; everything acknowledged so far is intact.
        """
        self.append_all((Step(step, record, rows, batches),))

    def append_all(self, steps: Sequence[Step]) -> None:
        """Record several steps with fewer system calls than one by one; all are acknowledged when this returns.

        Raises as :meth:`append` does. Where it fails, the first of them may be acknowledged and the rest not:
        :attr:`last_step` says.
        """
        waiting, before = [], self.last_step
        for step in steps:
            waiting.append(self._encoded(step, before))
            before = step.step
        try:
            while waiting:
                if self._chunk is None:
                    self._chunk = ChunkWriter(
                        self.directory, self._next, self.layout, self._skeleton(self._rows), self._messages
                    )
                    self._next += 1
                    self._chunk_began = time.monotonic()
                fitting, waiting = waiting[: self._chunk.room], waiting[self._chunk.room :]
                self._chunk.write(fitting)
                self.steps += len(fitting)
                self.last_step = fitting[-1].step
                full = not self._chunk.room or self._chunk.batch_bytes >= self._batch_bytes
                if full or time.monotonic() - self._chunk_began > self._chunk_seconds:
                    self.seal()
        except OSError as error:
            at = next((s.step for s in steps if self.last_step is None or s.step > self.last_step), self.last_step)
            raise RecordingError(
                f"{self.directory}: recording stopped at step {at}: {error.strerror or error}. "
                f"Steps up to {self.last_step} are safe. Make room or mend the disk, then go on with resume_at=."
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
        try:
            if chunk.rows:
                chunk.seal(self._skeleton(chunk.rows) if chunk.room else None)
            else:
                chunk.discard()
                self._next = chunk.number  # the manifest promises the chunks there are
        finally:
            chunk.abandon()

    def close(self, reason: str, **details: Any) -> None:
        """Seal what is open, write into the manifest why recording ended, and let go of the directory.

        The manifest's ``ended`` gets ``reason``, the time, the number of steps and chunks, and ``details``.
        """
        if self._lock.descriptor < 0:
            return
        try:
            self.seal()
        finally:
            try:
                ended = {"reason": reason, "time": now(), "steps": self.steps, "chunks": self._next, **details}
                self.update(ended=ended)
            finally:
                self._lock.release()
                self._lock = Lock(-1)

    def _encoded(self, step: Step, before: int | None) -> Encoded:
        if before is not None and step.step <= before:
            raise UsageError(f"{self.directory}: step {step.step} after step {before}; steps must increase.")
        if step.batches and not self.layout.batches:
            raise UsageError(
                f"{self.directory}: step {step.step} has a minibatch; the manifest says that none is recorded."
            )
        if not self._streams >= step.rows.keys():
            raise UsageError(
                f"{self.directory}: step {step.step} has vectors {sorted(step.rows)}; the manifest says "
                f"{', '.join(self.layout.streams)}."
            )
        message, values = self._messages.encode({**step.record, "step": step.step})
        return Encoded(step.step, message, values, step.rows, step.batches)

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
