"""Format version 1 in one place: names, streams, commit records, hashes. docs/format.md explains it."""

import re
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

VERSION = 1
MANIFEST = "manifest.json"
OPEN = ".tmp"  # suffix of the chunk that is still being recorded
BATCHES = "batches"  # a chunk's third file, where minibatches are recorded

STREAMS = {
    "x": "point x_t",
    "g": "gradient g_t at x_t on the minibatch z_t",
    "h": "look-back probe: gradient at x_{t-1} on the same z_t",
    "a": "look-ahead probe: gradient at x_{t+1} on the same z_t",
    "ga": "gradient at x_t on one half of z_t",
    "gb": "gradient at x_t on the other half of z_t",
}
BUFFER = "buffer:"  # "buffer:exp_avg" is a stream too: what the optimizer keeps under that name, after the update
DTYPES = ("float32", "float64")
SLICE_BYTES = 16 << 20  # a row is hashed in slices of this size
MAX_ROW_BYTES = (4 << 30) - 1  # HDF5's limit for one chunk
MAX_PARAMETERS = MAX_ROW_BYTES // 4
MAX_ROWS = 1 << 16  # rows of one chunk file

SEAL = np.dtype([("rows", "<u8"), ("commits", "<u8"), ("records", "<u8"), ("check", "<u8")])

_BUFFER = re.compile(re.escape(BUFFER) + r"[A-Za-z0-9_.-]{1,100}")
_CHUNK_NAME = re.compile(r"chunk-(\d{6})\.(h5|arrow|batches)(\.tmp)?")

Bytes = Any  # anything with the buffer protocol; Python 3.11 has no name for that


def digest(data: Bytes) -> int:
    """64-bit xxh3 of the bytes of ``data``; detects damage, does not resist an adversary."""
    return xxhash.xxh3_64_intdigest(data)


def streams_in_order(streams: tuple[str, ...]) -> bool:
    """Whether a run may have these: some of :data:`STREAMS` in that order, then optimizer buffers, none twice."""
    fixed = tuple(s for s in STREAMS if s in streams)
    buffers = streams[len(fixed) :]
    return (
        bool(fixed)
        and streams[: len(fixed)] == fixed
        and all(map(_BUFFER.fullmatch, buffers))
        and (len(set(buffers)) == len(buffers))
    )


def chunk_name(number: int, suffix: str = "h5") -> str:
    """File name of a sealed chunk; the open one ends in :data:`OPEN` as well."""
    return f"chunk-{number:06d}.{suffix}"


def chunk_number(name: str) -> tuple[int, str, bool] | None:
    """``(number, "h5", "arrow" or "batches", sealed)`` of a chunk's file name, or None for any other file."""
    match = _CHUNK_NAME.fullmatch(name)
    return (int(match[1]), match[2], match[3] is None) if match else None


def without_defaults(record: Any, *names: str) -> dict[str, Any]:
    """Fields of a dataclass for JSON, those of ``names`` only where they are true: later additions to the format."""
    return {name: value for name, value in asdict(record).items() if value or name not in names}


@dataclass(frozen=True)
class Layout:
    """What the chunk files of one run have in common.

    Args:
        streams: the recorded streams; :func:`streams_in_order` holds for them.
        parameters: ``d``, numbers per row.
        dtype: of the vectors, one of :data:`DTYPES`.
        batches: whether each step's minibatch is recorded too.
    """

    streams: tuple[str, ...]
    parameters: int
    dtype: str
    batches: bool = False

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of one row of one stream."""
        return self.parameters * np.dtype(self.dtype).itemsize

    @property
    def step_bytes(self) -> int:
        """Bytes of one step's vectors, all streams."""
        return self.row_bytes * len(self.streams)

    @cached_property
    def slices(self) -> tuple[tuple[int, int], ...]:
        """Half-open element ranges of a row that are hashed separately."""
        width = SLICE_BYTES // np.dtype(self.dtype).itemsize
        return tuple((a, min(a + width, self.parameters)) for a in range(0, self.parameters, width))

    @cached_property
    def commit(self) -> np.dtype[np.void]:
        """One commit record; it is written last and makes its step *acknowledged*.

        ``step`` is the step plus one (zero: nothing here yet), ``present`` a bit per stream, ``record`` the hash of
        the step record's Arrow message and ``record_end`` where it ends in the open record file, ``hashes`` those of
        the row slices, ``check`` the hash of all before it. With minibatches, ``batches`` is the hash of the step's
        message and ``batches_end`` where it ends in the chunk's file of minibatches.
        """
        batches = [("batches", "<u8"), ("batches_end", "<u8")] if self.batches else []
        return np.dtype(
            [
                ("step", "<u8"),
                ("present", "<u8"),
                ("record", "<u8"),
                ("record_end", "<u8"),
                ("hashes", "<u8", (len(self.streams), len(self.slices))),
                *batches,
                ("check", "<u8"),
            ]
        )

    def commit_record(
        self, step: int, record: int, end: int, hashes: Sequence[list[int] | None], batches: tuple[int, ...] = ()
    ) -> bytes:
        """Bytes of a commit record; ``record`` and ``end`` as in commit, ``hashes`` of each stream's slices or None.

        ``batches`` are its last two fields where minibatches are recorded.
        """
        words = [step + 1, 0, record, end]
        for i, found in enumerate(hashes):
            if found is None:
                words += [0] * len(self.slices)
            else:
                words[1] |= 1 << i
                words += found
        body = self._commit_words.pack(*words, *batches)
        return body + digest(body).to_bytes(8, "little")

    @cached_property
    def _commit_words(self) -> struct.Struct:
        return struct.Struct(f"<{self.commit.itemsize // 8 - 1}Q")


def commit_checks(commits: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
    """For each commit record whether its own check holds, shape ``(n,)``."""
    return np.array([digest(c.tobytes()[:-8]) == int(c["check"]) for c in commits], dtype=bool)


def seal_record(rows: int, commits: int, records: int) -> bytes:
    """Bytes of the seal: rows, the hash of the commit table and that of the sealed record file."""
    entry = np.array((rows, commits, records, 0), SEAL).tobytes()[:-8]
    return entry + digest(entry).to_bytes(8, "little")


def record_schema(hyperparameters: tuple[str, ...]) -> pa.Schema:
    """Arrow schema of the step records; units are in docs/format.md."""
    return pa.schema(
        [
            pa.field("step", pa.int64(), nullable=False),
            pa.field("time_ns", pa.int64(), nullable=False),
            pa.field("loss", pa.float64()),
            pa.field("loss_previous", pa.float64()),
            pa.field("loss_next", pa.float64()),
            pa.field("epoch", pa.int64()),
            pa.field("batch", pa.int64()),
            pa.field("random_scale", pa.float64()),
            pa.field("clip_factor", pa.float64()),
            pa.field("clip_value", pa.float64()),
            pa.field("finite", pa.bool_(), nullable=False),
            pa.field("skipped", pa.bool_()),
            *(pa.field(f"hyper:{name}", pa.float64()) for name in hyperparameters),
        ]
    )
