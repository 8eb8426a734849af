"""A run in one file: lossless, hashed, written from front to end in bounded memory. docs/format.md has the layout."""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer.errors import FormatError, UsageError
from tracer.store import frames
from tracer.store.batches import BatchReader, Passing
from tracer.store.chunk import Chunk, stream_schema
from tracer.store.codec import pack
from tracer.store.frames import FrameWriter
from tracer.store.header import Header
from tracer.store.layout import MANIFEST, OPEN, SEAL, VERSION, chunk_name, chunk_number, without_defaults
from tracer.store.places import Place, is_url, open_new
from tracer.store.predict import LAST, LINE, REPLAY, is_exact, replay_numbers
from tracer.store.tiles import COLUMNS, TileCoder, needs_numbers, no_numbers, tiles
from tracer.store.trace import Trace

ARCHIVE_VERSION = 1
SUFFIX = ".lemmata"
RECORD_PIECE = 4 << 20  # bytes of a record file in one frame
BATCH_PIECE = 4 << 20  # bytes of a file of minibatches in one frame
SAMPLE_STEPS, SAMPLE_COLUMNS = 16, 4 << 10

Progress = Callable[[int, int], None]  # steps done, steps in all
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Head:
    """What an archive says of itself in its first frame.

    ``digest`` is that of the run (:attr:`Trace.digest`), ``status`` ``closed`` or ``interrupted``, ``parameters`` the
    numbers in one vector, ``vector_bytes`` the bytes of all recorded vectors, ``guess`` how points are guessed,
    ``h_from_g`` whether h is stored as its difference to g, and ``batches`` whether minibatches are recorded.
    """

    run_id: str
    digest: str
    status: str
    steps: int
    chunks: int
    parameters: int
    dtype: str
    streams: tuple[str, ...]
    vector_bytes: int
    guess: str
    h_from_g: bool
    lemmata_format: int = VERSION
    lemmata_archive: int = ARCHIVE_VERSION
    batches: bool = False  # in the frame only if true


@dataclass(frozen=True)
class ChunkHead:
    """What an archive says of one chunk file: ``rows`` it has room for, ``steps`` it holds, as :class:`Header` has it.

    ``record_bytes`` is the size of its record file; of an open one, up to the last acknowledged step.
    """

    number: int
    sealed: bool
    attempt: int
    rows: int
    steps: int
    record_bytes: int


@dataclass(frozen=True)
class Archived:
    """What was written where, in bytes."""

    place: str
    head: Head
    bytes: int

    @property
    def ratio(self) -> float:
        """Bytes of the recorded vectors per byte of the archive."""
        return self.head.vector_bytes / self.bytes


def archive(run: str | os.PathLike[str], target: Place | None = None, progress: Progress | None = None) -> Archived:
    """Write a recorded run into one file; every vector is checked against its hash on the way.

    An interrupted run is archived with all its acknowledged steps. The run itself is not changed.

    Args:
        run: directory of the run.
        target: path or URL of the new file; a directory gets ``RUN.lemmata``. Default: beside the run.
        progress: called with steps done and steps in all.

    Raises:
        UsageError: the run is being recorded, or the target exists.
        FormatError: the run is damaged; nothing is left at the target.
        OSError: the target cannot be written.
    """
    directory = Path(run).absolute()
    with _held(directory):
        trace = Trace(directory)
        place = _place(target, directory)
        records = trace.records()
        numbers = _for_every_row(trace, replay_numbers(trace.manifest, records)) if is_exact() else None
        guess, h_from_g = _measure(trace, numbers)
        head = _head(trace, guess, h_from_g)
        with open_new(place) as file:
            return Archived(os.fspath(place), head, _write(file, trace, head, numbers, progress))


def _write(file: BinaryIO, trace: Trace, head: Head, numbers: Array | None, progress: Progress | None) -> int:
    writer = FrameWriter(file)
    writer.write(frames.HEAD, json.dumps(without_defaults(head, "batches")).encode())
    writer.write(frames.MANIFEST, pack((trace.path / MANIFEST).read_bytes()))
    coder = TileCoder(trace.manifest.layout, head.guess, head.h_from_g)
    index, done = [], 0
    for chunk in trace.chunks(superseded=True):
        index.append({"at": writer.bytes, "steps": chunk.steps[[0, -1]].tolist() if len(chunk.steps) else []})
        own = numbers[done : done + len(chunk.steps)] if numbers is not None and needs_numbers(head.guess) else None
        for rows in _write_chunk(writer, trace, chunk, coder, own):
            if progress:
                progress(done + rows, head.steps)
        done += len(chunk.steps)
    at = writer.bytes
    writer.write(frames.INDEX, pack(json.dumps(index).encode()))
    writer.end(at, head.steps)
    return writer.bytes


def _write_chunk(
    writer: FrameWriter, trace: Trace, chunk: Chunk, coder: TileCoder, numbers: Array | None
) -> Iterator[int]:
    """Write one chunk and yield the number of its steps done so far."""
    layout = trace.manifest.layout
    parsed = chunk_number(chunk.path.name)
    assert parsed is not None
    with open(chunk.path, "rb") as vectors:
        header = Header.read(vectors.fileno())
        seal = os.pread(vectors.fileno(), SEAL.itemsize, header.seal) if chunk.sealed else b""
    record_path = trace.path / (chunk_name(parsed[0], "arrow") + ("" if chunk.sealed else OPEN))
    size = record_path.stat().st_size
    if not chunk.sealed:
        ends = chunk.commits["record_end"]
        size = int(ends[-1]) if len(ends) else stream_schema(pa.py_buffer(record_path.read_bytes()))[1]
    own = ChunkHead(parsed[0], chunk.sealed, header.attempt, header.rows, len(chunk.steps), size)
    writer.write(frames.CHUNK, json.dumps(asdict(own)).encode())
    writer.write(frames.COMMITS, pack(chunk.commits.tobytes() + seal))
    typed = no_numbers(layout, len(chunk.steps))
    if numbers is not None:
        writer.write(frames.NUMBERS, pack(np.ascontiguousarray(numbers, "<f8")))
        typed = numbers.astype(layout.dtype)
    for rows, columns in tiles(layout, len(chunk.steps)):
        with np.errstate(all="ignore"):
            pieces = coder.encode(chunk.streams, chunk.has, typed, rows, columns)
        writer.write(frames.TILE, *pieces)
        if columns.stop == layout.parameters:
            yield rows.stop
    with open(record_path, "rb") as file:
        for at in range(0, size, RECORD_PIECE):
            piece = file.read(min(RECORD_PIECE, size - at))
            if len(piece) != min(RECORD_PIECE, size - at):
                raise FormatError(f"{record_path}: became shorter while it was archived. Restore it from a copy.")
            writer.write(frames.RECORDS, pack(piece))
    if layout.batches:
        _write_batches(writer, chunk)


def _write_batches(writer: FrameWriter, chunk: Chunk) -> None:
    with BatchReader(chunk) as reader:
        passing = Passing(chunk.commits)
        try:
            for piece in reader.pieces(BATCH_PIECE):
                passing.update(piece)
                writer.write(frames.BATCHES, pack(piece))
        except ValueError as error:
            raise FormatError(f"{reader.path}: {error}. Restore this file from a copy.") from None


def _head(trace: Trace, guess: str, h_from_g: bool) -> Head:
    layout = trace.manifest.layout
    chunks = list(trace.chunks(verify=False, superseded=True))
    present = sum(int(has.sum()) for chunk in chunks for has in chunk.has.values())
    return Head(
        run_id=trace.run_id,
        digest=trace.digest,
        status=trace.status,
        steps=sum(len(chunk.steps) for chunk in chunks),
        chunks=len(chunks),
        parameters=trace.parameters,
        dtype=layout.dtype,
        streams=layout.streams,
        vector_bytes=present * layout.row_bytes,
        guess=guess,
        h_from_g=h_from_g,
        batches=layout.batches,
    )


def _for_every_row(trace: Trace, numbers: Array | None) -> Array | None:
    """``numbers``, one row per step, with zeros for the rows that gave way to a later one of the same step."""
    rows = np.concatenate([np.empty(0, np.int64), *(c.steps for c in trace.chunks(verify=False, superseded=True))])
    if numbers is None or len(rows) == len(numbers):
        return numbers
    found = np.zeros((len(rows), numbers.shape[1]), numbers.dtype)
    found[np.append(np.diff(rows) != 0, True)] = numbers
    return found


def _measure(trace: Trace, numbers: Array | None) -> tuple[str, bool]:
    """The guess of points, and whether h is stored as a difference, that make the first steps smallest."""
    layout = trace.manifest.layout
    sample, has = _sample(trace)
    rows, columns = (slice(0, n) for n in sample[layout.streams[0]].shape)
    small = type(layout)(layout.streams, columns.stop, layout.dtype)

    def size(kind: str, h_from_g: bool) -> int:
        typed = no_numbers(small, rows.stop)
        if numbers is not None and needs_numbers(kind):
            typed = numbers[: rows.stop].astype(layout.dtype)
        coder, total = TileCoder(small, kind, h_from_g), 0
        for one in range(rows.stop):  # row by row, so that the choice of planes is not that of the first row
            with np.errstate(all="ignore"):
                pieces = coder.encode(sample, has, typed, slice(one, one + 1), columns)
            total += sum(memoryview(piece).nbytes for piece in pieces)
        return total

    kinds = [LAST, LINE] + ([REPLAY] if numbers is not None else [])
    guess = min(kinds, key=lambda kind: size(kind, False)) if "x" in layout.streams else LAST
    both = "g" in layout.streams and "h" in layout.streams
    return guess, both and size(guess, True) < size(guess, False)


def _sample(trace: Trace) -> tuple[dict[str, Array], dict[str, Array]]:
    """Some columns of the first steps, from the middle of the vectors."""
    layout = trace.manifest.layout
    width = min(layout.parameters, SAMPLE_COLUMNS, COLUMNS)
    left = (layout.parameters - width) // 2
    parts: dict[str, list[Array]] = {s: [np.empty((0, width), layout.dtype)] for s in layout.streams}
    has: dict[str, list[Array]] = {s: [np.empty(0, bool)] for s in layout.streams}
    steps = 0
    for chunk in trace.chunks(verify=False, superseded=True):
        take = min(SAMPLE_STEPS - steps, len(chunk.steps))
        for s in layout.streams:
            parts[s].append(np.array(chunk.streams[s][:take, left : left + width]))
            has[s].append(chunk.has[s][:take])
        steps += take
        if steps == SAMPLE_STEPS:
            break
    return {s: np.concatenate(p) for s, p in parts.items()}, {s: np.concatenate(p) for s, p in has.items()}


def _place(target: Place | None, directory: Path) -> Place:
    if target is None:
        return directory.with_name(directory.name + SUFFIX)
    if not is_url(target) and Path(target).is_dir():
        return Path(target) / (directory.name + SUFFIX)
    return target


@contextmanager
def _held(directory: Path) -> Iterator[None]:
    """Keep recorders out of the run while it is read; readers stay welcome."""
    if not (directory / MANIFEST).is_file():
        raise UsageError(f"{directory}: no recorded run. `lemmata ls` lists the runs of this home.")
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise UsageError(
            f"{directory}: this run is being recorded. Archive it when its training has ended, or stop that first."
        ) from None
    try:
        yield
    finally:
        os.close(descriptor)
