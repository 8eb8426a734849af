"""The empty HDF5 file of a chunk, built in memory: HDF5 itself never touches the disk while recording.

Plain HDF5 on a full disk crashes the process, and a file it holds open at a kill does not open again. So the library
writes its metadata into a :class:`_Sparse` file, which cannot fail; the writer puts those pieces on a file whose space is
already reserved, and from then on only calls ``pwrite``.
"""

import io
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from tracer.store.layout import SEAL, VERSION, Layout


@dataclass(frozen=True)
class Places:
    """Byte offsets in a chunk file: the first row of each stream, the commit table, the seal."""

    streams: dict[str, int]
    commits: int
    seal: int


@dataclass(frozen=True)
class Skeleton:
    """An empty chunk file: the pieces HDF5 wrote, as ``(offset, bytes)``, and where our own bytes go."""

    rows: int
    pieces: tuple[tuple[int, bytes], ...]
    places: Places
    size: int


class _Sparse(io.RawIOBase):
    """A file in memory that keeps only what was written; holes read as zeros."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, bytes]] = []
        self.length = 0
        self._at = 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.length}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def truncate(self, size: int | None = None) -> int:
        self.length = self._at if size is None else size
        return self.length

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self.pieces.append((self._at, piece))
        self._at += len(piece)
        self.length = max(self.length, self._at)
        return len(piece)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        start, stop = self._at, self._at + len(view)
        view[:] = bytes(len(view))
        for offset, piece in self.pieces:  # in the order of writing, so the last one stands
            a, b = max(start, offset), min(stop, offset + len(piece))
            if a < b:
                view[a - start : b - start] = piece[a - offset : b - offset]
        self._at = stop
        return len(view)


def build(layout: Layout, rows: int, run_id: str, attempt: int) -> Skeleton:
    """The empty file for ``rows`` steps of ``layout``; takes a few milliseconds and no disk.

    Chunks of one row, fixed extent, no filter and early allocation make HDF5 keep no index: rows lie back to back and
    one offset per stream says where. Anything that opens HDF5 reads the result.
    """
    sparse = _Sparse()
    # every stream begins on a page: aligned for the kernel, and for whoever maps the file
    with h5py.File(sparse, "w", libver="latest", alignment_threshold=512, alignment_interval=4096) as file:
        file.attrs.update({"lemmata_format": VERSION, "run_id": run_id, "attempt": attempt})
        for stream in layout.streams:
            _dataset(file, stream, (rows, layout.parameters), np.dtype(layout.dtype), chunk=(1, layout.parameters))
        _dataset(file, "commit", (rows,), layout.commit)
        _dataset(file, "seal", (1,), SEAL)
        places = find_places(file, layout)
    return Skeleton(rows, tuple(sparse.pieces), places, sparse.length)


def _dataset(
    file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], chunk: tuple[int, ...] | None = None
) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plist.set_obj_track_times(False)  # the same run gives the same bytes
    if chunk is not None:
        plist.set_chunk(chunk)
    h5py.h5d.create(
        file.id, name.encode(), h5py.h5t.py_create(dtype, logical=True), h5py.h5s.create_simple(shape), plist
    ).close()


def find_places(file: h5py.File, layout: Layout) -> Places:
    """Offsets in an open chunk file whose names, shapes, types and layouts are as :func:`build` makes them."""
    streams = {s: int(file[s].id.get_chunk_info_by_coord((0, 0)).byte_offset) for s in layout.streams}
    return Places(streams, int(file["commit"].id.get_offset()), int(file["seal"].id.get_offset()))
