"""Chunk files made again from an archive: their rows hashed as they come, and written where they were."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from tracer.store.archive import ChunkHead
from tracer.store.files import pwrite, sync
from tracer.store.header import Header
from tracer.store.layout import OPEN, Layout, chunk_name
from tracer.store.skeleton import build

Array = npt.NDArray[Any]


class Hashes:
    """Compares rows that come in parts with the hashes of their commit records."""

    def __init__(self, layout: Layout, commits: Array) -> None:
        self._layout, self._commits = layout, commits
        self._ends = {b: i for i, (_, b) in enumerate(layout.slices)}
        self._states: dict[tuple[str, int], Any] = {}

    def wrong(self, bits: dict[str, Array], has: dict[str, Array], rows: slice, columns: slice) -> str:
        """Name of the first row whose hash does not match, or an empty text."""
        part = self._ends.get(columns.stop)
        whole = part is not None and self._layout.slices[part] == (columns.start, columns.stop)
        for i, stream in enumerate(self._layout.streams):
            for row in np.flatnonzero(has[stream][rows]).tolist():
                if whole:
                    found = xxhash.xxh3_64_intdigest(bits[stream][row])
                else:
                    state = self._states.setdefault((stream, row), xxhash.xxh3_64())
                    state.update(bits[stream][row])
                    if part is None:
                        continue
                    found = self._states.pop((stream, row)).intdigest()
                commit = self._commits[rows.start + row]
                if found != int(commit["hashes"][i][part]):
                    return f"step {int(commit['step']) - 1}, stream {stream!r},"
        return ""


class Rebuilt:
    """A chunk file that is being restored: space is taken as vectors come, so a lie about sizes takes none."""

    def __init__(self, directory: Path, chunk: ChunkHead, layout: Layout, run_id: str) -> None:
        skeleton = build(layout, chunk.rows, run_id, chunk.attempt)
        self._header: Header = skeleton.header
        self._layout = layout
        name = chunk_name(chunk.number) + ("" if chunk.sealed else OPEN)
        self._file = os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        os.ftruncate(self._file, self._header.size)
        for offset, piece in skeleton.pieces:
            pwrite(self._file, piece, offset)

    def write(self, bits: dict[str, Array], has: dict[str, Array], rows: slice, columns: slice) -> None:
        """Write one tile."""
        width = np.dtype(self._layout.dtype).itemsize
        for stream, values in bits.items():
            begin = self._header.streams[stream] + columns.start * width
            if has[stream][rows].all() and columns.stop - columns.start == self._layout.parameters:
                pwrite(self._file, values, begin + rows.start * self._layout.row_bytes)
                continue
            for row in np.flatnonzero(has[stream][rows]).tolist():
                pwrite(self._file, values[row], begin + (rows.start + row) * self._layout.row_bytes)

    def finish(self, table: bytes, seal: bytes) -> None:
        """Write the commit table and the seal, and bring all to the disk."""
        pwrite(self._file, table, self._header.commit)
        pwrite(self._file, seal, self._header.seal)
        sync(self._file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
