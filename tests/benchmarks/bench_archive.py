"""Archive and restore a real AdamW trace; peers compress the same vectors in the same run.

    python tests/benchmarks/bench_archive.py [RUN]

Without RUN, an MLP of a million parameters is trained on the digits for 100 steps and recorded with x, g and h.
Every figure is per processor second of one core. Archive and restore also hash, read and write files; the peers work
from memory to memory.
"""

import os
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import h5py
import numpy as np
import pyarrow as pa
import torch
from torch import nn

from tests.training import digits
from tracer import Tracer
from tracer.store import Trace
from tracer.store.archive import archive
from tracer.store.restore import check_archive, restore

ROUNDS = 3
PEER_BYTES = 192 << 20  # the peers get the first vectors only: some are slow


def record(path: Path) -> None:
    """Train and record."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    inputs, labels = digits()
    model = nn.Sequential(nn.Linear(64, 960), nn.ReLU(), nn.Linear(960, 960), nn.ReLU(), nn.Linear(960, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with Tracer(path, model, optimizer, probes=["look_back"]) as tracer:
        for _ in range(100):
            chosen = torch.randint(0, len(labels), (64,))
            optimizer.zero_grad()
            tracer.loss(
                lambda k=chosen: nn.functional.cross_entropy(model(inputs[k]), labels[k])  # type: ignore[misc]
            ).backward()
            optimizer.step()


def seconds(action: Callable[[], object]) -> float:
    """Processor seconds of the shortest of a few runs: what other programs do meanwhile counts little."""
    found = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        action()
        found.append(time.process_time() - begin)
    return min(found)


def line(name: str, size: int, stored: int, write: float, read: float) -> None:
    """Print one row of the table."""
    rates = f"write {size / write / 1e9:5.2f} GB/s   read {size / read / 1e9:5.2f} GB/s"
    print(f"{name:30s} {size / stored:6.2f} : 1   {rates}")


def ours(run: Path, folder: Path) -> None:
    """Archive, check, restore."""
    list(Trace(run).chunks())  # into the page cache
    file = folder / "run.lemmata"

    def write() -> None:
        file.unlink(missing_ok=True)
        archive(run, file)

    def back() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as target:
            restore(file, target)

    written = seconds(write)
    head = check_archive(file)
    print(f"{run.name}: {head.steps} steps of {head.parameters:,} numbers, streams {'/'.join(head.streams)}, ", end="")
    print(f"{head.vector_bytes / 1e6:.0f} MB of vectors, guess {head.guess!r}")
    stored = file.stat().st_size
    line("lemmata, restored to files", head.vector_bytes, stored, written, seconds(back))
    line("lemmata, checked in memory", head.vector_bytes, stored, written, seconds(lambda: check_archive(file)))


def peers(run: Path) -> None:
    """The same vectors through general compressors."""
    rows: dict[str, np.ndarray] = {}
    chunk = next(c for c in Trace(run).chunks() if len(c.steps))
    count = max(1, min(len(chunk.steps), PEER_BYTES // (chunk.x.nbytes // len(chunk.steps) * len(chunk.streams))))
    rows = {s: np.array(v[:count]) for s, v in chunk.streams.items()}
    size = sum(v.nbytes for v in rows.values())
    zstd = pa.Codec("zstd", 1)
    small = [(bytes(zstd.compress(row)), row.nbytes) for v in rows.values() for row in v]
    line(
        "zstd-1 of each row", size, sum(len(p) for p, _ in small),
        seconds(lambda: [zstd.compress(row) for v in rows.values() for row in v]),
        seconds(lambda: [zstd.decompress(p, n) for p, n in small]),
    )  # fmt: skip
    packed = [zlib.compress(row, 1) for v in rows.values() for row in v]
    line(
        "gzip-1 of each row", size, sum(map(len, packed)),
        seconds(lambda: [zlib.compress(row, 1) for v in rows.values() for row in v]),
        seconds(lambda: [zlib.decompress(p) for p in packed]),
    )  # fmt: skip
    image = b""

    def write() -> None:
        nonlocal image
        with h5py.File.in_memory() as file:
            for s, v in rows.items():
                file.create_dataset(
                    s, data=v, chunks=(1, v.shape[1]), shuffle=True, compression="gzip", compression_opts=1
                )
            file.flush()
            image = file.id.get_file_image()

    def read() -> None:
        with h5py.File.in_memory(image) as file:
            for s in rows:
                file[s][...]

    written = seconds(write)
    line("h5py, shuffle + gzip-1", size, len(image), written, seconds(read))


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        run = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else folder / "mlp-1m-adamw"
        if len(sys.argv) == 1:
            record(run)
        ours(run, folder)
        peers(run)


if __name__ == "__main__":
    main()
