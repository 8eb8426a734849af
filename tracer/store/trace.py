"""Reading a run: lazily, verified, whether it was closed, was killed, or is still being recorded."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from tracer.errors import FormatError, UsageError
from tracer.store.batches import BatchReader, unsound
from tracer.store.chunk import Chunk, open_chunk, read_records
from tracer.store.layout import record_schema
from tracer.store.lock import being_written
from tracer.store.manifest import Block, Manifest, read_manifest
from tracer.store.minibatch import MicroBatch
from tracer.store.run_files import chunk_files, is_run, require_promised

Progress = Callable[[int, int], None]  # chunks done, chunks in all

_sound: set[tuple[int, ...]] = set()  # chunks verified in this process: Chunk.identity and rows


@dataclass(frozen=True)
class Damage:
    """One thing wrong with a run: the file, where in it, what was found."""

    path: Path
    where: str
    found: str

    def __str__(self) -> str:
        return f"{self.path}: {self.where}: {self.found}"


class Trace:
    """All acknowledged steps of a recorded run. Opening reads the manifest and the chunks' commit tables, no vectors.

    Args:
        path: directory of the run.

    Raises:
        FormatError: this is no run, or a part of it is missing or damaged; the message names the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self.manifest: Manifest = read_manifest(self.path)
        self._schema = record_schema(self.manifest.hyperparameters)
        try:
            # the lock first: a run that ends while it is read is then called "recording", never "interrupted"
            self._written = being_written(self.path)
            self._files = chunk_files(self.path)
        except OSError as error:
            raise FormatError(f"{self.path}: {error.strerror or error}. Make this directory readable.") from None
        if self.manifest.ended is not None:
            require_promised(self.path, len(self._files), self.manifest.ended.get("chunks"))

    @property
    def run_id(self) -> str:
        """The run's name, also the name of its Dagster partition."""
        return self.manifest.run_id

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The recorded parameter tensors, in the order of the vectors."""
        return self.manifest.blocks

    @property
    def parameters(self) -> int:
        """Numbers in one vector, ``d``."""
        return self.manifest.parameters

    @property
    def streams(self) -> tuple[str, ...]:
        """Recorded streams, some of ``x``, ``g``, ``h``."""
        return self.manifest.streams

    @property
    def status(self) -> str:
        """``closed``, ``recording`` (a process holds the run) or ``interrupted`` (it died before it closed the run)."""
        if self.manifest.ended is not None:
            return "closed"
        return "recording" if self._written else "interrupted"

    @cached_property
    def steps(self) -> npt.NDArray[np.int64]:
        """Acknowledged steps, increasing, shape ``(T,)``."""
        return np.concatenate([np.empty(0, np.int64), *(chunk.steps for chunk in self._chunks)])

    @property
    def step_count(self) -> int:
        """Number of acknowledged steps, the closing row with the final point included."""
        return len(self.steps)

    @property
    def chunk_count(self) -> int:
        """Number of chunk files."""
        return len(self._files)

    @property
    def first_step(self) -> int | None:
        """First acknowledged step, None in an empty run."""
        return int(self.steps[0]) if len(self.steps) else None

    @property
    def last_step(self) -> int | None:
        """Last acknowledged step, None in an empty run."""
        return int(self.steps[-1]) if len(self.steps) else None

    @property
    def torn(self) -> int:
        """Steps that were being written when the process died; not acknowledged, not readable."""
        return sum(chunk.torn for chunk in self._chunks)

    @cached_property
    def bytes(self) -> int:
        """Size of the run's files in bytes."""
        return sum(entry.stat().st_size for entry in os.scandir(self.path) if entry.is_file())

    @cached_property
    def digest(self) -> str:
        """Hash of the run's content, 32 hex digits: equal content gives an equal digest however it is cut up.

        Made of the step records and of the hashes in the commit records: it reads no vector, and verifies none.
        """
        state = xxhash.xxh3_128()
        m = self.manifest
        state.update(repr((m.run_id, m.blocks, m.streams, m.dtype, m.loss_dtype, m.hyperparameters)).encode())
        for name in ("step", "present", "hashes", *(("batches",) if m.batches else ())):
            for chunk in self._chunks:
                state.update(chunk.commits[name].tobytes())
        records = self.records()  # the values: Arrow leaves the padding of its messages undefined
        for name, column in zip(records.column_names, records.itercolumns(), strict=True):
            if column.null_count == len(column):
                continue  # a column that a later version added says nothing about this run
            state.update(name.encode())
            state.update(column.is_valid().to_numpy().tobytes())
            state.update(pc.fill_null(column, pa.scalar(0).cast(column.type)).to_numpy().tobytes())
        return state.hexdigest()

    def chunks(
        self, verify: bool | range = True, progress: Progress | None = None, superseded: bool = False
    ) -> Iterator[Chunk]:
        """The chunks in order of their steps, mapped one at a time: memory does not grow with the run.

        Args:
            verify: compare every row with its hash; a range of chunks where others see to the rest.
            progress: called with chunks done and chunks in all.
            superseded: with the closing rows, too, that gave way to the step with which a later attempt went on.

        Raises:
            FormatError: a row's hash does not match; the message names file, step and stream.
        """
        chunks = [whole for whole, _ in self._opened] if superseded else self._chunks
        for done, chunk in enumerate(chunks):
            if progress:
                progress(done, len(chunks))
            yield self._mapped(chunk, verify if isinstance(verify, bool) else done in verify)
        if progress:
            progress(len(chunks), len(chunks))

    def check(self, chunk: Chunk) -> None:
        """Compare every row of ``chunk`` with its hash, for who maps chunks first and verifies them meanwhile.

        Raises:
            FormatError: a row's hash does not match; the message names file, step and stream.
        """
        for damage in self._damage(chunk):
            raise FormatError(f"{damage}. Restore this file from a copy; the other chunks are not affected.")

    def rows(self, stream: str, start: int, stop: int) -> Iterator[npt.NDArray[np.generic]]:
        """Rows ``start`` to ``stop`` (by place in :attr:`steps`) of one stream, chunk by chunk, shape ``(n, d)``.

        Mapped, not verified: for a glance at a few rows by who reads all chunks anyway. Rows that were not recorded
        hold anything; the records say which, as ``has_x`` and the like.
        """
        at = 0
        for chunk in self._chunks:
            a, b = max(start - at, 0), min(stop - at, len(chunk.steps))
            if a < b:
                yield self._mapped(chunk, verify=False).streams[stream][a:b]
            at += len(chunk.steps)

    def records(self) -> pa.Table:
        """One row per acknowledged step.

        Columns: step, time_ns (wall clock), loss, loss_previous (at x_{t-1} on z_t), epoch, batch, random_scale,
        clip_factor, finite, skipped (the gradient scaler left out the update), has_x, has_g, has_h, and the optimizer's
        hyperparameters as float64, both per group (``group0.lr``) and, where all groups agree at that step, once
        (``lr``; null where they differ).

        Raises:
            FormatError: a record file is missing or damaged.
        """
        tables = [self._schema.empty_table()]
        for (whole, table), chunk in zip(self._opened, self._chunks, strict=True):
            read = read_records(self._record_path(whole), whole, self._schema) if table is None else table
            tables.append(read.slice(0, len(chunk.steps)))
        table = pa.concat_tables(tables)
        for stream in dict.fromkeys(("x", "g", "h", *self.streams)):
            parts = [np.empty(0, bool)]
            parts += [c.has.get(stream, np.zeros(len(c.steps), bool)) for c in self._chunks]
            table = table.append_column(f"has_{stream}", pa.array(np.concatenate(parts)))
        return _spread_hyperparameters(table)

    def batches(self, step: int) -> list[MicroBatch]:
        """The minibatch z_t of a step as ``tracer.loss`` got it: one entry per call, in order.

        A step without one (the closing row with the final point) has an empty list.

        Raises:
            UsageError: the run was recorded without minibatches, or has no such step.
            FormatError: the file is damaged; the message names it.
        """
        self._require_batches()
        for (whole, _), chunk in zip(self._opened, self._chunks, strict=True):
            row = int(np.searchsorted(chunk.steps, step))
            if row < len(chunk.steps) and chunk.steps[row] == step:
                with BatchReader(whole) as reader:
                    return reader.read(row)
        raise UsageError(
            f"{self.path}: step {step} is not recorded; the run has {self.step_count} steps, {self.first_step} to "
            f"{self.last_step}."
        )

    def batches_by_step(
        self, first: int | None = None, last: int | None = None
    ) -> Iterator[tuple[int, list[MicroBatch]]]:
        """Each step from ``first`` to ``last``, both included, with its minibatch, as :meth:`batches` gives it.

        A file is opened once per chunk, and one step at a time is in memory.

        Raises:
            UsageError: the run was recorded without minibatches.
            FormatError: a file is damaged; the message names it.
        """
        self._require_batches()
        for (whole, _), chunk in zip(self._opened, self._chunks, strict=True):
            low = 0 if first is None else int(np.searchsorted(chunk.steps, first))
            high = len(chunk.steps) if last is None else int(np.searchsorted(chunk.steps, last, side="right"))
            if low >= high:
                continue
            with BatchReader(whole) as reader:
                for row in range(low, high):
                    yield int(chunk.steps[row]), reader.read(row)

    def damage(self, progress: Progress | None = None, threads: int = 0) -> list[Damage]:
        """Everything wrong with the run's files, in order of the chunks; an empty list means sound.

        Args:
            progress: called with chunks done and chunks in all.
            threads: how many chunks are read at once; as many as there are processors if zero.
        """
        found: list[Damage] = []
        with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
            for done, part in enumerate(pool.map(self._damage_of_file, self._files), 1):
                found += part
                if progress:
                    progress(done, len(self._files))
        if not found:
            self._chunks  # noqa: B018  whether they follow each other
        return found

    def _damage_of_file(self, file: tuple[Path, bool]) -> list[Damage]:
        path, sealed = file
        try:
            chunk = open_chunk(path, self.manifest.layout, self.run_id, sealed)
            read_records(self._record_path(chunk), chunk, self._schema)
            found = list(self._damage(chunk))
            if self.manifest.batches:
                found += [Damage(*each) for each in unsound(chunk)]
            return found
        except FormatError as error:
            return [_told(error, self.path)]

    @cached_property
    def _opened(self) -> list[tuple[Chunk, pa.Table | None]]:
        """Chunks as they stand in the files. Sealed ones are mapped when asked for; the open one, which will be renamed
        when it is sealed, is kept mapped, and its records are read now.
        """
        for _ in range(5):
            try:
                chunks = (open_chunk(path, self.manifest.layout, self.run_id, sealed) for path, sealed in self._files)
                return [
                    (c.unmapped(), None) if c.sealed else (c, read_records(self._record_path(c), c, self._schema))
                    for c in chunks
                ]
            except FormatError:
                files = chunk_files(self.path)
                if files == self._files:
                    raise
                self._files = files  # a living writer sealed the chunk between our looking and our opening
        raise FormatError(f"{self.path}: changes faster than it can be read. Try again, or wait until recording ends.")

    @cached_property
    def _chunks(self) -> list[Chunk]:
        chunks = [chunk for chunk, _ in self._opened]
        for i, (before, after) in enumerate(pairwise(chunks)):
            if not len(before.steps) or not len(after.steps) or before.steps[-1] < after.steps[0]:
                continue
            if before.steps[-1] > after.steps[0] or not before.ends_with_final_point:
                raise FormatError(f"{after.path}: its steps do not follow those of {before.path.name}.")
            chunks[i] = before.without_last()  # the run went on from its final point
        return chunks

    def _mapped(self, chunk: Chunk, verify: bool) -> Chunk:
        if chunk.sealed:
            again = open_chunk(chunk.path, self.manifest.layout, self.run_id, sealed=True)
            chunk = again if len(again.steps) == len(chunk.steps) else again.without_last()
        if verify:
            self.check(chunk)
        return chunk

    def _require_batches(self) -> None:
        if not self.manifest.batches:
            raise UsageError(
                f"{self.path}: recorded without minibatches. Record with Tracer(..., record_batches=True) and "
                "tracer.loss(closure, tensors={...})."
            )

    def _record_path(self, chunk: Chunk) -> Path:
        return chunk.path.with_name(chunk.path.name.replace(".h5", ".arrow"))

    def _damage(self, chunk: Chunk) -> Iterator[Damage]:
        key = (*chunk.identity, len(chunk.steps))
        if key in _sound:
            return
        sound = True
        for step, stream in chunk.damage(self.manifest.layout):
            sound = False
            yield Damage(chunk.path, f"step {step}, stream '{stream}'", "the hash does not match the data")
        if sound:
            _sound.add(key)


def verify(path: str | os.PathLike[str], progress: Progress | None = None) -> list[Damage]:
    """Read every byte of a run that a value depends on, and list what is wrong; an empty list means sound."""
    directory = Path(path).absolute()
    try:
        return Trace(directory).damage(progress)
    except FormatError as error:
        return [_told(error, directory)]


def runs(root: str | os.PathLike[str]) -> list[Path]:
    """Directories under ``root`` that hold a manifest, or cannot be looked into, by name; an absent root holds none.

    Raises:
        UsageError: the root is no directory, or may not be listed.
    """
    try:
        entries = sorted(Path(root).iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(
            f"{os.fspath(root)}: expected a directory of runs, found: {error.strerror or error}. Make it one that you "
            "can read, or set LEMMATA_HOME to a directory of yours."
        ) from None
    return [entry for entry in entries if is_run(entry)]


def _told(error: FormatError, directory: Path) -> Damage:
    """What an error says, with the file that it names named once."""
    text = str(error).removeprefix(str(directory))
    if text != str(error) and text.startswith(os.sep):
        name, _, found = text[1:].partition(": ")
        return Damage(directory / name, "file", found)
    return Damage(directory, "run", text.removeprefix(": "))


def _spread_hyperparameters(table: pa.Table) -> pa.Table:
    per_group = [name for name in table.column_names if name.startswith("hyper:")]
    shared: dict[str, list[str]] = {}
    for name in per_group:
        shared.setdefault(name.split(".", 1)[1], []).append(name)
    for name, columns in shared.items():
        agreed = table[columns[0]]
        for other in columns[1:]:
            agreed = pc.if_else(pc.equal(agreed, table[other]), agreed, None)
        if name not in table.column_names:
            table = table.append_column(name, agreed)
    return table.rename_columns([name.removeprefix("hyper:") for name in table.column_names])
