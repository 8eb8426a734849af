"""How fast a run is read, verified and reduced, beside a bare read of its files and a loop over torch files."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numba
import numpy as np
import polars as pl
import torch

from analysis.geometry import geometry
from analysis.tables import MODEL, Tables
from analysis.vectors.kernel import PIECE, Array, Behind, Carried, Vectors, cuts, pair
from analysis.vectors.path import WINDOW
from analysis.vectors.products import PAIR, products
from analysis.vectors.references import REFERENCES, find_points
from analysis.vectors.spread import Sums, Work
from tests.benchmarks.measure import Session, at_least, timed
from tests.by_hand import manifest
from tracer.store import Trace, trace
from tracer.store.points import EMA, SEED, TAIL
from tracer.store.run_writer import RunWriter

ROUNDS = 12
BLOCKS = 8
SHAPES = ((100_000, 400), (1_000_000, 40))  # parameters, steps; x, g and h
BUFFER = 1 << 20

Rows = np.ndarray[tuple[int, int], np.dtype[np.float32]]


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

    points = _points(run_path)
    buffer = bytearray(BUFFER)
    contenders = {
        "read": timed(lambda: _read(run_path, buffer)),
        "verified": timed(lambda: _verified(run_path)),
        "pairs only": timed(lambda: _pairs_verified(run_path)),
        "pairs": timed(lambda: _reduced(run_path, ())),
        "everything": timed(lambda: _reduced(run_path, REFERENCES)),
        "torch pairs": timed(lambda: _torch_loop(folder / "torch", steps)),
        "torch everything": timed(lambda: _torch_everything(folder / "torch", steps)),
        "kernel pairs": timed(lambda: _pairs(rows)),
        "kernel path": timed(lambda: _kernel(rows, sizes, points[:0])),
        "kernel everything": timed(lambda: _kernel(rows, sizes, points)),
        "kernel cached": timed(lambda: _kernel_cached(rows)),
        "memory": timed(lambda: [_sum(v) for v in rows.values()]),
        "memory by all": timed(lambda: _sum_by_all(rows)),
    }
    found = session.take_turns(f"reading, d = {size:,}", contenders, session.rounds(ROUNDS))
    _agree(run_path, folder / "torch", steps)
    setting = f"d = {size:,}, {steps} steps of x, g and h"
    references = f"{len(points)} references"

    def add(name: str, above: str, below: str, least: float | None = None) -> None:
        target = None if least is None else at_least(least)
        session.add("reading", setting, name, found[below] / found[above], target)

    add("rate, one read of the same memory, all processors / one", "memory by all", "memory")
    add("rate, verified read / bare read()", "verified", "read")
    add("rate, read, verified and reduced to the pairs alone, without the path / bare read()", "pairs only", "read")
    add("rate, read, verified and reduced without references / bare read()", "pairs", "read", 0.6)
    add(f"rate, read, verified and reduced with {references} / bare read()", "everything", "read")
    add("rate, kernel, the pairs alone / one read of the same memory", "kernel pairs", "memory", 0.75)
    add("rate, kernel, pairs and path / one read of the same memory", "kernel path", "memory", 0.75)
    add("rate, kernel, pairs and path in the cache / one read of the same memory", "kernel cached", "memory")
    add(f"rate, kernel with {references} / one read of the same memory", "kernel everything", "memory")
    add("rate, reduced without references / a loop over torch.save files, pairs alone", "pairs", "torch pairs")
    add("rate, reduced / a loop over torch.save files, the same numbers", "everything", "torch everything", 10)


def _path(size: int, steps: int) -> dict[str, Rows]:
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


def _reduced(run_path: Path, references: tuple[str, ...]) -> Tables:
    trace._sound.clear()
    return geometry(Trace(run_path), references=references)


def _points(run_path: Path) -> Rows:
    found = Trace(run_path)
    records = pl.DataFrame(pl.from_arrow(found.records()))
    return find_points(found, records, REFERENCES).vectors


def _kernel(rows: dict[str, Rows], sizes: tuple[int, ...], references: Rows, times: int = 1) -> None:
    """The kernel on one thread, as the bare read of the memory is."""
    x, g, h = rows["x"], rows["g"], rows["h"]
    n, d = x.shape
    nothing, never, opens = np.empty((0, d), x.dtype), np.zeros(n, bool), np.arange(n) % 100 == 0
    vectors = Vectors(x, g, h, nothing, nothing, nothing, ~never, never, never)
    behind = Behind(x[0], x[0], g[0], g[0], has_a=False)
    carried = Carried(x[0].copy(), x[0].copy(), np.zeros(d), np.zeros(d), opens)
    for _ in range(times):
        products(vectors, behind, carried, references, cuts(list(sizes)), len(sizes), _ALONE)


@numba.njit(nogil=True, cache=True)
def _pairs_of(x: Rows, g: Rows, h: Rows, out: Array, first: int, last: int) -> None:
    for i in range(first, last, PIECE):
        j = min(i + PIECE, last)
        for t in range(1, x.shape[0]):
            pair(x[t][i:j], x[t - 1][i:j], g[t][i:j], h[t][i:j], out[t])


def _pairs(rows: dict[str, Rows]) -> None:
    """What the kernel does for the geometry table, without the path: eight products of each pair, and three norms."""
    n, d = rows["x"].shape
    _pairs_of(rows["x"], rows["g"], rows["h"], np.zeros((n, 11)), 0, d)


def _pairs_verified(run_path: Path) -> None:
    """The pairs within each chunk, by all processors, while a thread compares the hashes, as the product does."""
    trace._sound.clear()
    found = Trace(run_path)
    with ThreadPoolExecutor(1) as checker, ThreadPoolExecutor(os.cpu_count()) as pool:
        for chunk in found.chunks(verify=False):
            checked = checker.submit(found.check, chunk)
            x, g, h = (chunk.streams[name] for name in "xgh")
            cut = np.linspace(0, x.shape[1], 1 + BLOCKS, dtype=int).tolist()
            parts = [pool.submit(_pairs_of, x, g, h, np.zeros((len(x), 11)), a, b) for a, b in pairwise(cut)]
            for part in (*parts, checked):
                part.result()


def _kernel_cached(rows: dict[str, Rows]) -> None:
    """As many numbers, but always the same few: what the arithmetic takes where no memory is waited for."""
    few = {name: np.ascontiguousarray(v[:64, :PIECE]) for name, v in rows.items()}
    times = max(1, round(rows["x"].size / few["x"].size))
    _kernel(few, (few["x"].shape[1],), few["x"][:0], times)


class _Alone:
    """One thread computes all parts."""

    columns = slice(None)

    def __call__(self, work: Work, parts: Sequence[Array]) -> Iterable[tuple[Array, Sums]]:
        return [(part, work(part)) for part in parts]


_ALONE = _Alone()


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def _sum(values: Rows) -> float:
    """Every number read once and added up in double precision."""
    total = 0.0
    for t in range(values.shape[0]):
        row = values[t]
        for i in range(row.size):
            total += np.float64(row[i])
    return total


def _sum_by_all(rows: dict[str, Rows]) -> None:
    """What a second processor is worth here: some share a core, or the way to the memory."""
    count = os.cpu_count() or 1
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(_sum, [part for v in rows.values() for part in np.array_split(v, count)]))


def _torch_loop(folder: Path, steps: int) -> torch.Tensor:
    """The eight products of each pair, shape ``(steps - 1, 8)``, the way one would write them by hand."""
    table, before = [], None
    for t in range(steps):
        row = {name: v.double() for name, v in torch.load(folder / f"{t}.pt", weights_only=True).items()}
        if before is not None:
            gx, gy, d = row["g"], row["h"], row["x"] - before
            dg = gx - gy
            table.append(torch.stack([d @ d, gx @ d, gy @ d, dg @ d, dg @ dg, gx @ gx, gy @ gy, gx @ gy]))
        before = row["x"]
    return torch.stack(table)


def _torch_points(folder: Path, steps: int) -> torch.Tensor:
    """The reference points, shape ``(6, d)``; the files are mapped, so that only x is read from them."""
    tail, mean = -(-steps // TAIL), 0.0
    ema = tail_mean = 0.0
    for t in range(steps):
        x = torch.load(folder / f"{t}.pt", mmap=True, weights_only=True)["x"].double()
        ema = ema + EMA ** (steps - 1 - t) * x
        mean += EMA ** (steps - 1 - t)
        if t == 0:
            first = x
        if t >= steps - tail:
            tail_mean = tail_mean + x / tail
    drawn = np.random.default_rng(SEED).standard_normal(len(x), np.float32)
    direction = torch.from_numpy(drawn).double()
    random = first + direction * ((x - first).square().sum() / direction.square().sum()).sqrt()
    return torch.stack([x, tail_mean, ema / mean, first, first, random]).float()  # of equal losses, the first's


def _torch_everything(folder: Path, steps: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """All numbers of the model, no blocks: of the pairs (8), of the path (13), of each reference (3), per step."""
    pairs, path, to = [], [], []
    given = _torch_points(folder, steps).double()
    before: dict[str, torch.Tensor] = {}
    for t in range(steps):
        row = {name: v.double() for name, v in torch.load(folder / f"{t}.pt", weights_only=True).items()}
        x, g, h = row["x"], row["g"], row["h"]
        if not before:
            before = {"x": x, "g": g * 0, "d": x * 0}
            first, total = x, g * 0
        if t % WINDOW == 0:
            opened, window = x, g * 0
        d, q, total, window = x - before["x"], g - h, total + g, window + g
        pairs.append(torch.stack([d @ d, g @ d, h @ d, q @ d, q @ q, g @ g, h @ h, g @ h]))
        sums = [x @ x, g @ x, x @ d, g @ before["g"], d @ before["d"], before["g"] @ d, d.abs().max(), g.abs().sum()]
        moved = x - opened
        sums += [q.abs().sum(), total @ total, g @ (x - first), window @ window, moved @ moved]
        path.append(torch.stack(sums))
        of_points = []
        for point in given:
            e = x - point
            of_points.append(torch.stack([e @ e, g @ e, (before["x"] - point) @ d]))
        to.append(torch.stack(of_points))
        before = {"x": x, "g": g, "d": d}
    return torch.stack(pairs), torch.stack(path), torch.stack(to)


def _agree(run_path: Path, folder: Path, steps: int) -> None:
    """Numbers of the two loops and of the tables, those of a few columns of every kind."""
    found = _reduced(run_path, REFERENCES)
    model = found.geometry.filter(block=MODEL).collect()
    ours, pairs = model.filter(pairing="previous").select(PAIR).to_numpy(), _torch_loop(folder, steps).numpy()
    same, path, to = (numbers.numpy() for numbers in _torch_everything(folder, steps))
    np.testing.assert_allclose(ours, pairs, rtol=1e-9)
    np.testing.assert_allclose(same[1:], pairs, rtol=1e-12)
    sums = ("x_x", "g_x", "d_max", "g_sum", "dg_sum", "gsum_gsum", "wsum_wsum", "wmove_wmove")
    along = found.path.filter(block=MODEL).select(sums).collect().to_numpy()[1:]
    np.testing.assert_allclose(along, path[1:, (0, 1, 6, 7, 8, 9, 11, 12)], rtol=1e-9, atol=1e-9)
    for k, name in enumerate(found.facts.references):
        pair = model.filter(pairing=f"reference:{name}").select("d_d", "gx_d").to_numpy()
        # the points themselves are rounded to float32, of sums in another order
        np.testing.assert_allclose(pair, to[:, k, :2], rtol=1e-6, atol=1e-6)
    assert os.path.getsize(folder / "0.pt")
