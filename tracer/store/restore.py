"""A run out of its archive: read from front to end, every row hashed, the directory renamed into place at the end."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tracer.errors import FormatError, UsageError
from tracer.store import frames
from tracer.store.archive import ARCHIVE_VERSION, BATCH_PIECE, RECORD_PIECE, ChunkHead, Head, Progress
from tracer.store.batches import Passing
from tracer.store.codec import unpack
from tracer.store.files import ASIDE, sync, sync_directory
from tracer.store.frames import END, End, FrameReader
from tracer.store.home import check_run_id, runs_root
from tracer.store.layout import (
    BATCHES,
    DTYPES,
    MANIFEST,
    MAX_PARAMETERS,
    MAX_ROW_BYTES,
    MAX_ROWS,
    OPEN,
    SEAL,
    VERSION,
    Layout,
    chunk_name,
    streams_in_order,
)
from tracer.store.manifest import MAX_BYTES
from tracer.store.places import Place, open_old
from tracer.store.predict import KINDS, NUMBERS, is_exact
from tracer.store.rebuild import Hashes, Rebuilt
from tracer.store.tiles import NUMBERS_OF_A_TILE, TileCoder, needs_numbers, no_numbers, tiles
from tracer.store.trace import Trace

Array = npt.NDArray[Any]
Record = TypeVar("Record", Head, ChunkHead)

MAX_TABLE = 64 << 20  # bytes of a chunk's commit table
MAX_RECORDS = 16 << 30  # bytes of a record file
MAX_TEXT = 1 << 20  # bytes of a frame of JSON
MIN_TILE = frames.PREFIX.size  # bytes of the smallest tile frame


def restore(source: Place, root: Place | None = None, progress: Progress | None = None) -> Path:
    """Make a run directory from an archive and return its path, ``root / run_id``.

    The run has the digest it had, and every vector its bytes; where HDF5 is the same release, the files are the same.

    Args:
        source: path or URL of the archive; it is read once, from front to end.
        root: directory that gets the run. Default: where :func:`tracer.store.home.runs_root` says.
        progress: called with steps done and steps in all.

    Raises:
        UsageError: the run is there already; nothing is overwritten.
        FormatError: the archive is damaged, cut off or foreign; nothing is left behind.
        OSError: no room, or another fault of the disk; nothing is left behind.
    """
    folder = runs_root() if root is None else Path(root).absolute()
    with _opened(source) as reader:
        head = _head(reader)
        target = folder / head.run_id
        _refuse_occupied(target)
        _require_room(reader, head, folder)
        with _aside(folder, head.run_id) as directory:
            _unpack(reader, head, directory, progress)
            trace = Trace(directory)
            if (trace.digest, trace.status) != (head.digest, head.status):
                raise reader.broken("what was restored is not the run that its header describes")
            sync_directory(directory)
            _refuse_occupied(target)
            os.rename(directory, target)
        sync_directory(folder)
    return target


def check_archive(source: Place, progress: Progress | None = None) -> Head:
    """Read a whole archive, compare every row with its hash, write nothing, and return what the archive is.

    Raises:
        UsageError: nothing is there.
        FormatError: the archive is damaged, cut off or foreign.
    """
    with _opened(source) as reader:
        head = _head(reader)
        _unpack(reader, head, None, progress)
    return head


def read_head(source: Place) -> Head:
    """What an archive says of itself; reads no further.

    Raises:
        UsageError: nothing is there.
        FormatError: the beginning is not that of an archive.
    """
    with _opened(source) as reader:
        return _head(reader)


def _unpack(reader: FrameReader, head: Head, directory: Path | None, progress: Progress | None) -> None:
    """Decode everything; write it if there is a ``directory``."""
    manifest = _unpacked(reader, reader.read(frames.MANIFEST)[1], MAX_BYTES)
    if directory is not None:
        (directory / MANIFEST).write_bytes(manifest)
    layout = Layout(head.streams, head.parameters, head.dtype, head.batches)
    if needs_numbers(head.guess) and not is_exact():
        raise UsageError(
            f"{reader.name}: this thread rounds the smallest numbers to zero (torch.set_flush_denormal(True), or a "
            "library built with -ffast-math), so that the points would come out wrong. Restore in a fresh process."
        )
    coder = TileCoder(layout, head.guess, head.h_from_g)
    done = 0
    for number in range(head.chunks):
        chunk = _json(reader, reader.read(frames.CHUNK)[1], ChunkHead)
        _check_chunk(reader, chunk, number, head, layout, done)
        for rows in _unpack_chunk(reader, chunk, layout, head, coder, directory):
            if progress:
                progress(done + rows, head.steps)
        done += chunk.steps
    at = reader.bytes
    _unpacked(reader, reader.read(frames.INDEX)[1], MAX_BYTES)
    _, raw = reader.read(frames.LAST)
    end = End(*END.unpack(raw))
    if (end.index, end.steps, done) != (at, head.steps, head.steps):
        raise reader.broken("its end does not fit what came before")


def _unpack_chunk(
    reader: FrameReader, chunk: ChunkHead, layout: Layout, head: Head, coder: TileCoder, directory: Path | None
) -> Iterator[int]:
    table_bytes = chunk.steps * layout.commit.itemsize
    raw = _unpacked(reader, reader.read(frames.COMMITS)[1], MAX_TABLE)
    if len(raw) != table_bytes + (SEAL.itemsize if chunk.sealed else 0):
        raise reader.broken("a commit table of the wrong size")
    commits = np.frombuffer(raw[:table_bytes], layout.commit)
    present = commits["present"]
    has = {s: (present >> np.uint64(i) & np.uint64(1)) == 1 for i, s in enumerate(layout.streams)}
    numbers = no_numbers(layout, chunk.steps)
    if needs_numbers(head.guess):
        size = chunk.steps * len(NUMBERS) * 8
        packed = _unpacked(reader, reader.read(frames.NUMBERS)[1], size)
        if len(packed) != size:
            raise reader.broken("a table of numbers of the wrong size")
        with np.errstate(all="ignore"):
            numbers = np.frombuffer(packed, "<f8").reshape(chunk.steps, len(NUMBERS)).astype(layout.dtype)
    rebuilt = Rebuilt(directory, chunk, layout, head.run_id) if directory is not None else None
    try:
        hashes = Hashes(layout, commits)
        for rows, columns in tiles(layout, chunk.steps):
            _, tile = reader.read(frames.TILE)
            try:
                with np.errstate(all="ignore"):
                    bits = coder.decode(tile, has, numbers, rows, columns)
            except ValueError as error:
                raise reader.broken(error) from None
            wrong = hashes.wrong(bits, has, rows, columns)
            if wrong:
                raise reader.broken(f"{wrong} does not match its hash")
            if rebuilt:
                rebuilt.write(bits, has, rows, columns)
            if columns.stop == layout.parameters:
                yield rows.stop
        if rebuilt:
            rebuilt.finish(raw[:table_bytes], raw[table_bytes:])
    finally:
        if rebuilt:
            rebuilt.close()
    _unpack_records(reader, chunk, directory)
    if layout.batches:
        _unpack_batches(reader, chunk, commits, directory)


def _unpack_records(reader: FrameReader, chunk: ChunkHead, directory: Path | None) -> None:
    path = Path(os.devnull)
    if directory is not None:
        path = directory / (chunk_name(chunk.number, "arrow") + ("" if chunk.sealed else OPEN))
    with open(path, "wb") as file:
        left = chunk.record_bytes
        while left:
            piece = _unpacked(reader, reader.read(frames.RECORDS)[1], RECORD_PIECE)
            if len(piece) != min(left, RECORD_PIECE):
                raise reader.broken("a piece of step records of the wrong size")
            file.write(piece)
            left -= len(piece)
        file.flush()
        if directory is not None:
            sync(file.fileno())


def _unpack_batches(reader: FrameReader, chunk: ChunkHead, commits: Array, directory: Path | None) -> None:
    path = Path(os.devnull)
    if directory is not None:
        path = directory / (chunk_name(chunk.number, BATCHES) + ("" if chunk.sealed else OPEN))
    try:
        passing = Passing(commits)
        with open(path, "wb") as file:
            for at in range(0, passing.size, BATCH_PIECE):
                piece = _unpacked(reader, reader.read(frames.BATCHES)[1], BATCH_PIECE)
                if len(piece) != min(passing.size - at, BATCH_PIECE):
                    raise ValueError("a piece of minibatches of the wrong size")
                passing.update(piece)
                file.write(piece)
            file.flush()
            if directory is not None:
                sync(file.fileno())
    except ValueError as error:
        raise reader.broken(error) from None


@contextmanager
def _opened(source: Place) -> Iterator[FrameReader]:
    with open_old(source) as (file, size):
        yield FrameReader(file, os.fspath(source), size)


@contextmanager
def _aside(folder: Path, run_id: str) -> Iterator[Path]:
    """A new directory two levels below ``folder``, where nothing that lists runs looks; gone after the block."""
    folder.mkdir(parents=True, exist_ok=True)
    outer = Path(tempfile.mkdtemp(prefix=f"{run_id}.", suffix=ASIDE, dir=folder))
    try:
        inner = outer / run_id
        inner.mkdir()
        yield inner
    finally:
        shutil.rmtree(outer, ignore_errors=True)


def _refuse_occupied(target: Path) -> None:
    if os.path.lexists(target):
        raise UsageError(
            f"{target}: is there already; recorded data are never overwritten. Restore into another directory, or "
            "move this one away."
        )


def _require_room(reader: FrameReader, head: Head, folder: Path) -> None:
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if head.vector_bytes > free:
        raise UsageError(
            f"{folder}: the vectors in {reader.name} need {head.vector_bytes} bytes and the disk has {free} left. "
            "Make room, or restore to another disk."
        )


def _head(reader: FrameReader) -> Head:
    head = _json(reader, reader.read(frames.HEAD)[1], Head)
    if (head.lemmata_archive, head.lemmata_format) != (ARCHIVE_VERSION, VERSION):
        raise FormatError(
            f"{reader.name}: an archive of version {head.lemmata_archive} of a trace of format {head.lemmata_format}; "
            f"this version of lemmata reads {ARCHIVE_VERSION} and {VERSION}. Install the version that wrote it."
        )
    try:
        check_run_id(head.run_id)
        item = np.dtype(head.dtype).itemsize if head.dtype in DTYPES else 0
        sound = item and streams_in_order(head.streams) and head.guess in KINDS
        sound = sound and 0 < head.parameters <= MAX_PARAMETERS and head.parameters * item <= MAX_ROW_BYTES
        rows = head.steps * len(head.streams) * head.parameters * item
        if not (sound and 0 <= head.vector_bytes <= rows and head.chunks >= 0):
            raise ValueError("an impossible shape")
    except (UsageError, ValueError) as error:
        raise reader.broken(f"its header: {error}") from None
    least = -(-head.steps * head.parameters // NUMBERS_OF_A_TILE) * MIN_TILE
    if reader.size is not None and least > reader.size:
        raise reader.broken(f"promises {head.steps} steps of {head.parameters} numbers in {reader.size} bytes")
    return head


def _check_chunk(reader: FrameReader, chunk: ChunkHead, number: int, head: Head, layout: Layout, done: int) -> None:
    """Sizes are believed only after this."""
    sound = chunk.number == number and 0 <= chunk.steps <= chunk.rows <= MAX_ROWS and chunk.rows > 0
    sound = sound and (chunk.steps == chunk.rows or not chunk.sealed) and 0 < chunk.attempt < 1 << 31
    sound = sound and 0 <= chunk.record_bytes <= MAX_RECORDS and chunk.steps <= head.steps - done
    if not (sound and chunk.rows * layout.commit.itemsize <= MAX_TABLE):
        raise reader.broken("a chunk of an impossible shape")


def _json(reader: FrameReader, raw: memoryview, record: type[Record]) -> Record:
    """The record as the frame has it, each field of the type that the record says."""
    try:
        if len(raw) > MAX_TEXT:
            raise ValueError("too long")
        body = json.loads(bytes(raw))
        names = {f.name for f in fields(record)}
        if not isinstance(body, dict) or not names - {"batches"} <= set(body) <= names:
            raise ValueError("not the fields of this version")
        for f in fields(record):
            if f.name not in body:
                continue  # a later addition, and not true
            value: Any = body[f.name]
            if isinstance(value, list):
                value = tuple(value)
            plain = f.type if f.type in (str, int, bool) else tuple
            if type(value) is not plain or (isinstance(value, tuple) and not all(isinstance(v, str) for v in value)):
                raise ValueError(f"field {f.name!r} is a {type(value).__name__}")
            body[f.name] = value
        return record(**body)
    except (ValueError, TypeError, RecursionError) as error:
        raise reader.broken(f"its JSON is not sound ({error!s:.120})") from None


def _unpacked(reader: FrameReader, raw: memoryview, limit: int) -> bytes:
    try:
        return unpack(raw, limit)
    except ValueError as error:
        raise reader.broken(error) from None
