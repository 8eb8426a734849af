"""Runs written straight through the store, without torch: any shape, any cut."""

from pathlib import Path

import h5py
import numpy as np

from tracer.store import trace
from tracer.store.manifest import Block, Manifest
from tracer.store.minibatch import STORED, MicroBatch, encode
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


def micro_batches(steps, seed=0):
    """For each step its micro-batches: any dtype, empty and 0-d arrays, awkward weights; none at step 2."""
    random = np.random.default_rng(seed)

    def one(i):
        shapes = {"inputs": (3, 2), "none": (0, 4), "number": (), "targets": (5,)}
        dtypes = {name: str(random.choice(list(STORED))) for name in shapes}
        return MicroBatch(
            tensors={n: _any(random, STORED[dtypes[n]], s) for n, s in shapes.items()},
            dtypes=dtypes,
            weight=[1 / 3, None, -0.0, float("inf")][i % 4],
            training=bool(i % 3),
            exceptions=("net.0", "größe")[: i % 3],
            autocast={"cpu": "bfloat16"} if i % 2 else {},
            random={"torch:cpu": _any(random, np.dtype("u1"), (9,))} if i % 2 else None,
        )

    return [[] if t == 2 else [one(t + k) for k in range(1 + t % 3)] for t in range(steps)]


def _any(random, dtype, shape):
    if dtype.kind == "b":
        return random.random(shape) < 0.5
    return np.frombuffer(random.bytes(dtype.itemsize * int(np.prod(shape))), dtype).reshape(shape)


def same_batches(a, b):
    """Whether two lists of micro-batches are the same bit for bit."""

    def bits(batch):
        arrays = [*batch.tensors.items(), ("", None), *(batch.random or {}).items()]
        kept = [(n, None if v is None else (str(v.dtype), v.shape, v.tobytes())) for n, v in arrays]
        rest = batch.dtypes, str(batch.weight), batch.training, batch.exceptions, batch.autocast, batch.random is None
        return kept, rest

    return len(a) == len(b) and all(bits(p) == bits(q) for p, q in zip(a, b, strict=True))


def write_run(
    path: Path,
    rows,
    at=None,
    close=True,
    chunk_rows=None,
    sizes=(3, 4),
    without=None,
    more=None,
    batches=None,
    **fields,
):
    """Write ``rows`` (stream to (T, d) array) at steps ``at``; ``without`` maps a stream to rows that lack it.

    ``more`` maps a field of the step records to T values; what is None there is not recorded. ``batches`` has the
    micro-batches of each step.
    """
    first = next(iter(rows.values()))
    m = manifest(path.name, sizes, str(first.dtype), tuple(rows), batches=batches is not None, **fields)
    size = m.layout.step_bytes * (chunk_rows or len(first) + 1)
    writer = RunWriter(path, m, chunk_bytes=size)
    for t in range(len(first)):
        present = {s: v[t] for s, v in rows.items() if t not in (without or {}).get(s, ())}
        step = t if at is None else at[t]
        record = {"time_ns": t, "finite": True, "loss": 1.0 / (1 + t), "loss_previous": 1.1 / (1 + t)}
        record |= {name: values[t] for name, values in (more or {}).items()}
        message = () if batches is None else encode(batches[t])
        writer.append(step, {**record, "hyper:group0.lr": 0.1}, present, message)
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
