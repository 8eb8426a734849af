"""The empty HDF5 file of a chunk, built in memory: HDF5 itself never touches the disk while recording.

Plain HDF5 on a full disk crashes the process, and a file it holds open at a kill does not open again. So the library
writes its metadata into a :class:`_Sparse` file, which cannot fail; the writer puts those pieces on a file whose space
is already reserved, and from then on only calls ``pwrite``.
"""

import io
from dataclasses import dataclass
from functools import cache
from typing import Any

import h5py
import numpy as np

from tracer.store.header import PAGE, Header
from tracer.store.layout import SEAL, VERSION, Layout, digest


@dataclass(frozen=True)
class Skeleton:
    """An empty chunk file: its first page and the pieces HDF5 wrote, as ``(offset, bytes)``."""

    header: Header
    pieces: tuple[tuple[int, bytes], ...]

    @property
    def rows(self) -> int:
        """Steps the file has room for."""
        return self.header.rows


class _Sparse(io.RawIOBase):
    """A file in memory that keeps only what was written; holes read as zeros."""

    def __init__(self) -> None:
        self.writes: list[tuple[int, bytes]] = []
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
        self.writes.append((self._at, piece))
        self._at += len(piece)
        self.length = max(self.length, self._at)
        return len(piece)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        view[:] = self.image(self._at, self._at + len(view))
        self._at += len(view)
        return len(view)

    def image(self, start: int, stop: int) -> bytes:
        """The bytes between two places, the last write standing."""
        found = bytearray(stop - start)
        for offset, piece in self.writes:
            a, b = max(start, offset), min(stop, offset + len(piece))
            if a < b:
                found[a - start : b - start] = piece[a - offset : b - offset]
        return bytes(found)

    def pieces(self) -> list[tuple[int, bytes]]:
        """What was written, as disjoint pieces in order."""
        merged: list[list[int]] = []
        for start, stop in sorted((offset, offset + len(piece)) for offset, piece in self.writes if piece):
            if merged and start <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], stop)
            else:
                merged.append([start, stop])
        return [(start, self.image(start, stop)) for start, stop in merged]


def build(layout: Layout, rows: int, run_id: str, attempt: int) -> Skeleton:
    """The empty file for ``rows`` steps of ``layout``; takes a few milliseconds and no disk.

    Chunks of one row, fixed extent, no filter and early allocation make HDF5 keep no index: rows lie back to back and
    one offset per stream says where. Anything that opens HDF5 reads the result. Every stream begins on a page.
    """
    sparse = _Sparse()
    with _new_file(sparse) as file:
        file.attrs.update({"lemmata_format": VERSION, "run_id": run_id, "attempt": attempt})
        for stream in layout.streams:
            _dataset(file, stream, (rows, layout.parameters), np.dtype(layout.dtype), chunk=(1, layout.parameters))
        _dataset(file, "commit", (rows,), layout.commit)
        _dataset(file, "seal", (1,), SEAL)
        shift = _shift()
        streams = {s: file[s].id.get_chunk_info_by_coord((0, 0)).byte_offset + shift for s in layout.streams}
        commit, seal = (file[name].id.get_offset() + shift for name in ("commit", "seal"))
    pieces = [(offset, piece) for offset, piece in sparse.pieces() if offset >= PAGE]
    header = Header(
        run_id=run_id,
        attempt=attempt,
        rows=rows,
        parameters=layout.parameters,
        dtype=layout.dtype,
        streams=streams,
        commit=commit,
        seal=seal,
        size=sparse.length,
        metadata=tuple((offset, len(piece)) for offset, piece in pieces),
        metadata_xxh3=f"{digest(b''.join(piece for _, piece in pieces)):016x}",
        batches=layout.batches,
    )
    return Skeleton(header, ((0, header.page()), *pieces))


def _new_file(sparse: _Sparse) -> h5py.File:
    return h5py.File(
        sparse, "w", libver="latest", userblock_size=PAGE, alignment_threshold=512, alignment_interval=PAGE
    )


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


@cache
def _shift() -> int:
    """What this HDF5 leaves out of the offsets it reports: nothing, or the user's page. Releases differ; so ask."""
    sparse, mark = _Sparse(), bytes(range(200, 232))
    with _new_file(sparse) as file:
        _dataset(file, "mark", (32,), np.dtype("u1"))
        file["mark"][...] = np.frombuffer(mark, np.uint8)
        reported = int(file["mark"].id.get_offset())
    return sparse.image(0, sparse.length).index(mark) - reported
