"""Runs written straight through the store, without torch: any shape, any cut."""

from pathlib import Path

import h5py
import numpy as np

from tracer.store import trace
from tracer.store.manifest import Block, Manifest
from tracer.store.run_writer import RunWriter


def manifest(run_id="run", sizes=(3, 4), dtype="float32", streams=("x", "g", "h"), **fields):
    blocks, at = [], 0
    for i, size in enumerate(sizes):
        blocks.append(Block(f"block{i}", (size,), dtype, at, size))
        at += size
    return Manifest(run_id, "2026-01-01T00:00:00+00:00", tuple(blocks), streams, dtype, ("group0.lr",), **fields)


def vectors(steps, size, dtype="float32", streams=("x", "g", "h"), seed=0):
    random = np.random.default_rng(seed)
    return {s: random.normal(size=(steps, size)).astype(dtype) for s in streams}


def write_run(path: Path, rows, at=None, close=True, chunk_rows=None, sizes=(3, 4), without=None, more=None, **fields):
    """Write ``rows`` (stream to (T, d) array) at steps ``at``; ``without`` maps a stream to rows that lack it.

    ``more`` maps a field of the step records to T values; what is None there is not recorded.
    """
    first = next(iter(rows.values()))
    m = manifest(path.name, sizes, str(first.dtype), tuple(rows), **fields)
    size = m.layout.step_bytes * (chunk_rows or len(first) + 1)
    writer = RunWriter(path, m, chunk_bytes=size)
    for t in range(len(first)):
        present = {s: v[t] for s, v in rows.items() if t not in (without or {}).get(s, ())}
        step = t if at is None else at[t]
        record = {"time_ns": t, "finite": True, "loss": 1.0 / (1 + t), "loss_previous": 1.1 / (1 + t)}
        record |= {name: values[t] for name, values in (more or {}).items()}
        writer.append(step, {**record, "hyper:group0.lr": 0.1}, present)
    if close:
        writer.close("finished")
    return writer


def flip(path: Path, at: int, mask: int = 0x10) -> None:
    """Flip bits of one byte of a file; twice puts it back."""
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ mask]))


def flip_in(path: Path, stream: str) -> None:
    """Flip one bit of a vector, as a bad disk would; :mod:`tracer.store` remembers nothing of it."""
    with h5py.File(path, "r") as file:
        at = file[stream].id.get_chunk_info(0).byte_offset + 9
    flip(path, at)
    trace._sound.clear()
