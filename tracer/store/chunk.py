"""Reading one chunk: checked before it is believed, mapped rather than copied."""

import math
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer.errors import FormatError
from tracer.store.header import Header
from tracer.store.layout import SEAL, Layout, commit_checks, digest, seal_record

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Chunk:
    """The acknowledged steps of one chunk file, ``n`` of them.

    ``steps`` has shape ``(n,)``; ``x``, ``g`` and ``h`` have shape ``(n, d)`` and are read-only views of the file, or
    None where the run does not record that stream. ``has`` says per stream which rows were recorded, shape ``(n,)``.
    ``torn`` counts commit records that were being written when the process died; their steps were not acknowledged.
    """

    path: Path
    sealed: bool
    steps: npt.NDArray[np.int64]
    commits: Array
    streams: dict[str, Array]
    has: dict[str, npt.NDArray[np.bool_]]
    torn: int
    records_hash: int  # of the sealed record file; 0 while the chunk is open
    attempt: int  # which process recorded it, counted from 1
    identity: tuple[int, int, int, int]  # of the file when it was opened: device, inode, size, time of change

    @property
    def x(self) -> Array:
        """Points x_t, shape ``(n, d)``."""
        return self.streams["x"]

    @property
    def g(self) -> Array | None:
        """Gradients at x_t on z_t, shape ``(n, d)``, in loss per distance."""
        return self.streams.get("g")

    @property
    def h(self) -> Array | None:
        """Look-back gradients at x_{t-1} on z_t, shape ``(n, d)``, in loss per distance."""
        return self.streams.get("h")

    @property
    def ends_with_final_point(self) -> bool:
        """Whether the last row is a closing one: the point after the last update, and no gradient."""
        return bool(len(self.steps) and not self.has.get("g", self.has["x"])[-1])

    def without_last(self) -> "Chunk":
        """The same chunk without its last row."""
        return replace(
            self,
            steps=self.steps[:-1],
            commits=self.commits[:-1],
            streams={s: v[:-1] for s, v in self.streams.items()},
            has={s: v[:-1] for s, v in self.has.items()},
        )

    def unmapped(self) -> "Chunk":
        """The same chunk without its vectors: a mapped file costs a descriptor and, once read, memory."""
        return replace(self, commits=self.commits.copy(), streams={})

    def damage(self, layout: Layout) -> Iterator[tuple[int, str]]:
        """Read every recorded row and yield ``(step, stream)`` wherever a hash does not match."""
        for row, commit in enumerate(self.commits):
            for i, stream in enumerate(layout.streams):
                if self.has[stream][row]:
                    vector = self.streams[stream][row]
                    found = [digest(vector[a:b]) for a, b in layout.slices]
                    if found != commit["hashes"][i].tolist():
                        yield int(self.steps[row]), stream


def open_chunk(path: Path, layout: Layout, run_id: str, sealed: bool) -> Chunk:
    """Open a chunk file and check everything but the vectors' hashes (see :meth:`Chunk.damage`).

    Raises:
        FormatError: the file is no chunk of this run, or its commit table or seal is damaged.
    """
    try:
        with open(path, "rb") as file:
            header = Header.read(file.fileno())
            if (header.run_id, header.layout) != (run_id, layout):
                raise ValueError(f"belongs to run {header.run_id!r}, or its streams are not those of the manifest")
            stat = os.fstat(file.fileno())
            buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except PermissionError as error:
        raise FormatError(f"{path}: {error.strerror}. Make this file readable.") from None
    except (OSError, ValueError, RecursionError) as error:
        found = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise FormatError(f"{path}: {found}. Restore this file from a copy.") from None
    rows = header.rows
    table = _view(buffer, layout.commit, (rows,), header.commit)
    seal = _view(buffer, SEAL, (1,), header.seal)[0]
    shape = (rows, layout.parameters)
    streams = {s: _view(buffer, np.dtype(layout.dtype), shape, at) for s, at in header.streams.items()}
    count, torn = _count(path, table, seal, sealed)
    commits = table[:count]
    steps = commits["step"].astype(np.int64) - 1
    if (np.diff(steps) <= 0).any() or (steps < 0).any():
        raise FormatError(f"{path}: its steps do not increase.")
    present = commits["present"].astype(np.int64)
    return Chunk(
        path=path,
        sealed=sealed,
        steps=steps,
        commits=commits,
        streams={s: v[:count] for s, v in streams.items()},
        has={s: present >> i & 1 == 1 for i, s in enumerate(layout.streams)},
        torn=torn,
        records_hash=int(seal["records"]) if sealed else 0,
        attempt=header.attempt,
        identity=(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns),
    )


def read_records(path: Path, chunk: Chunk, schema: pa.Schema) -> pa.Table:
    """The step records that belong to ``chunk``, one row per acknowledged step, hashes verified first.

    Raises:
        FormatError: the file is missing, damaged, or does not hold exactly the chunk's steps.
    """
    raw = _read(path)
    try:
        if chunk.sealed:
            if digest(raw) != chunk.records_hash:
                raise FormatError(
                    f"{path}: its hash does not match the seal of {chunk.path.name}; the file is damaged."
                )
            table = pa.ipc.open_file(raw).read_all()
        else:
            written, head = stream_schema(raw)
            ends = [head, *chunk.commits["record_end"].tolist()]
            messages = [raw[a:b] for a, b in pairwise(ends)]
            for message, commit in zip(messages, chunk.commits, strict=True):
                if digest(message) != int(commit["record"]):
                    raise FormatError(f"{path}: the record of step {int(commit['step']) - 1} is damaged.")
            table = pa.Table.from_batches([pa.ipc.read_record_batch(m, written) for m in messages], written)
        table.validate(full=True)
        table = _conformed(table, schema)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise FormatError(f"{path}: not readable as Arrow IPC ({error!s:.200}).") from None
    if table["step"].to_pylist() != chunk.steps.tolist():
        raise FormatError(f"{path}: its records are not those of the steps in {chunk.path.name}.")
    return table


def stream_schema(raw: pa.Buffer) -> tuple[pa.Schema, int]:
    """Schema of an open record file and the length of the message that holds it."""
    reader = pa.BufferReader(raw)
    return pa.ipc.read_schema(pa.ipc.read_message(reader)), reader.tell()


def _conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """``table`` with the columns of ``schema``: those it was recorded without are null. Raises ValueError."""
    unknown = [f for f in table.schema if f.name not in schema.names or f.type != schema.field(f.name).type]
    lacking = [f.name for f in schema if not f.nullable and f.name not in table.column_names]
    if unknown or lacking or len(set(table.column_names)) < table.num_columns:
        raise ValueError(f"unknown columns {[f.name for f in unknown]!s:.80}, missing columns {lacking}")
    columns = [
        table[f.name] if f.name in table.column_names else pa.nulls(table.num_rows, f.type).cast(f.type) for f in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _read(path: Path) -> pa.Buffer:
    try:
        with open(path, "rb") as file:
            return pa.py_buffer(file.read())
    except PermissionError as error:
        raise FormatError(f"{path}: {error.strerror}. Make this file readable.") from None
    except OSError as error:
        raise FormatError(f"{path}: {os.strerror(error.errno or 0)}; the chunk's step records are missing.") from None


def _view(buffer: mmap.mmap, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int) -> Array:
    return np.frombuffer(buffer, dtype, math.prod(shape), offset).reshape(shape)


def _count(path: Path, table: Array, seal: Any, sealed: bool) -> tuple[int, int]:
    """Acknowledged rows and torn commit records."""
    if sealed:
        rows = int(seal["rows"])
        if seal_record(rows, int(seal["commits"]), int(seal["records"])) != seal.tobytes() or not rows <= len(table):
            raise FormatError(f"{path}: its seal is damaged.")
        if digest(table[:rows].tobytes()) != int(seal["commits"]) or rows != len(table):
            raise FormatError(f"{path}: its commit table does not match its seal.")
        return rows, 0
    # a record that lost its step number is used too
    used = np.asarray(table.view(np.uint8).reshape(len(table), -1).any(axis=1))
    count = int(used.argmin()) if not used.all() else len(table)
    sound = commit_checks(table[:count])
    if used[count:].any() or not sound[:-1].all():
        raise FormatError(f"{path}: its commit table is damaged.")
    torn = int(count > 0 and not sound[-1])
    return count - torn, torn
