"""How fast a run is read, verified and reduced, beside a bare read of its files and a loop over torch files."""

import os
from pathlib import Path

import numba
import numpy as np
import polars as pl
import torch

from analysis.geometry import geometry
from analysis.kernel import cuts
from analysis.products import PAIR, products
from analysis.tables import MODEL
from tests.benchmarks.measure import Session, at_least, timed
from tests.by_hand import manifest
from tracer.store import Trace, trace
from tracer.store.run_writer import RunWriter

ROUNDS = 12
BLOCKS = 8
SHAPES = ((100_000, 400), (1_000_000, 40))  # parameters, steps; x, g and h
BUFFER = 1 << 20


def run(session: Session) -> None:
    """Both shapes."""
    for size, steps in ((800, 8),) if session.quick else SHAPES:
        _compare(session, size, steps)


def _compare(session: Session, size: int, steps: int) -> None:
    sizes = (size // BLOCKS,) * BLOCKS
    rows = _path(size, steps)
    folder = session.folder / f"reading-{size}"
    (folder / "torch").mkdir(parents=True)
    run_path = folder / "run"
    writer = RunWriter(run_path, manifest("run", sizes))
    for t in range(steps):
        present = {name: v[t] for name, v in rows.items()}
        writer.append(t, {"time_ns": t, "finite": True, "loss": 1.0, "loss_previous": 1.0}, present)
        torch.save({n: torch.from_numpy(v.copy()) for n, v in present.items()}, folder / "torch" / f"{t}.pt")
    writer.close("finished")

    buffer = bytearray(BUFFER)
    contenders = {
        "read": timed(lambda: _read(run_path, buffer)),
        "verified": timed(lambda: _verified(run_path)),
        "reduced": timed(lambda: _reduced(run_path)),
        "torch": timed(lambda: _torch_loop(folder / "torch", steps)),
        "kernel": timed(lambda: _kernel(rows, sizes)),
        "memory": timed(lambda: [_sum(v) for v in rows.values()]),
    }
    found = session.take_turns(f"reading, d = {size:,}", contenders, session.rounds(ROUNDS))
    _agree(run_path, folder / "torch", steps)
    setting = f"d = {size:,}, {steps} steps of x, g and h"

    def add(name: str, above: str, below: str, least: float | None = None) -> None:
        target = None if least is None else at_least(least)
        session.add("reading", setting, name, found[below] / found[above], target)

    add("rate, verified read / bare read()", "verified", "read")
    add("rate, read, verified and reduced / bare read()", "reduced", "read", 0.6)
    add("rate, kernel / one read of the same memory", "kernel", "memory", 0.75)
    add("rate, read, verified and reduced / a loop over torch.save files", "reduced", "torch")


def _path(size: int, steps: int) -> dict[str, np.ndarray[tuple[int, int], np.dtype[np.float32]]]:
    """A trajectory: points close to each other, gradients that are alike."""
    random = np.random.default_rng(0)
    g = random.standard_normal((steps, size), np.float32)
    x = np.cumsum(g, axis=0, dtype=np.float32) * np.float32(-1e-3)
    h = g + np.float32(1e-2) * random.standard_normal((steps, size), np.float32)
    return {"x": x, "g": g, "h": h}


def _read(run_path: Path, buffer: bytearray) -> None:
    for path in sorted(run_path.glob("*.h5")):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def _verified(run_path: Path) -> None:
    trace._sound.clear()  # a process verifies each chunk once; here it is asked again and again
    for _ in Trace(run_path).chunks():
        pass


def _reduced(run_path: Path) -> pl.DataFrame:
    trace._sound.clear()
    return geometry(Trace(run_path)).geometry.collect()


def _kernel(rows: dict[str, np.ndarray[tuple[int, int], np.dtype[np.float32]]], sizes: tuple[int, ...]) -> None:
    x, g, h = rows["x"], rows["g"], rows["h"]
    products(x, g, h, (x[0], x[0], g[0]), cuts(list(sizes)), len(sizes))


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def _sum(values: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> float:
    """Every number read once and added up in double precision."""
    total = 0.0
    for t in range(values.shape[0]):
        row = values[t]
        for i in range(row.size):
            total += np.float64(row[i])
    return total


def _torch_loop(folder: Path, steps: int) -> torch.Tensor:
    """The eight products of each pair, shape ``(steps - 1, 8)``, the way one would write them by hand."""
    table, before = [], None
    for t in range(steps):
        row = {name: v.double() for name, v in torch.load(folder / f"{t}.pt").items()}
        if before is not None:
            gx, gy, d = row["g"], row["h"], row["x"] - before
            dg = gx - gy
            table.append(torch.stack([d @ d, gx @ d, gy @ d, dg @ d, dg @ dg, gx @ gx, gy @ gy, gx @ gy]))
        before = row["x"]
    return torch.stack(table)


def _agree(run_path: Path, folder: Path, steps: int) -> None:
    ours = _reduced(run_path).filter(pl.col("block") == MODEL, pl.col("pairing") == "previous").sort("step")
    np.testing.assert_allclose(ours.select(PAIR).to_numpy(), _torch_loop(folder, steps).numpy(), rtol=1e-9)
    assert os.path.getsize(folder / "0.pt")
