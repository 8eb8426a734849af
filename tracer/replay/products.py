"""Inner products of a pair whose second gradient was replayed: differences first, sums in double precision."""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tracer.store.manifest import Block, Manifest

PIECE = 1 << 20  # numbers that are widened at once
SMALL = 1 << 18  # parameters up to which calls cost more than sums, and pairs are reduced together
WIDE = 1 << 11  # coordinates of several pairs that are widened at once: they stay in the cache
NAMES = ("gy_d", "dg_d", "dg_dg", "gy_gy", "gx_gy", "gy_step")
_AT = ((2, 0), (1, 0), (1, 1), (2, 2), (2, 3), (2, 4))  # in the Gram matrix of d, dg, gy, gx, step
Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


def products(
    blocks: Sequence[Block],
    x: torch.Tensor,
    y: torch.Tensor,
    gx: torch.Tensor,
    gy: torch.Tensor,
    before: torch.Tensor | None,
) -> Floats:
    """Products of one pair, float64, shape ``(1 + blocks, 6)`` in the order of :data:`NAMES`; the model first.

    d = x − y and dg = gx − gy are formed in float64 before any product; ``step`` is x − ``before``, NaN where there is
    none. All vectors have shape ``(d,)`` and are on one device.
    """
    if x.device.type == "cpu" and len(x) <= SMALL:
        known = x if before is None else before
        found = _together(tuple(blocks), *(v.numpy()[None] for v in (x, y, gx, gy, known)))
        model_first: Floats = with_model(_without_step(found, np.array([before is None])))[0]
        return model_first
    grams = torch.zeros(len(blocks), 5, 5, dtype=torch.float64, device=x.device)
    for start, stop, inside in _pieces(tuple(blocks)):
        rows = torch.empty(5, stop - start, dtype=torch.float64, device=x.device)
        rows[2], rows[3] = gy[start:stop], gx[start:stop]
        rows[0] = x[start:stop]
        rows[4] = torch.nan if before is None else rows[0] - before[start:stop]
        rows[0] -= y[start:stop]
        torch.sub(rows[3], rows[2], out=rows[1])
        for k, a, b in inside:
            part = rows[:, a - start : b - start]
            grams[k].addmm_(part, part.T)
    found = grams.cpu().numpy()
    return with_model(np.stack([found[:, i, j] for i, j in _AT], axis=1))


def products_of_rows(
    blocks: Sequence[Block],
    x: Array,
    y: torch.Tensor,
    gx: Array,
    gy: torch.Tensor,
    before: Array,
    known: npt.NDArray[np.bool_],
) -> Floats:
    """The same of ``n`` pairs with one point y: shape ``(n, 1 + blocks, 6)``.

    Args:
        x, gx, before: shape ``(n, d)``, on the host.
        y, gy: shapes ``(d,)`` and ``(n, d)``, where the loss was evaluated.
        known: which rows have a ``before``; the others hold anything.
    """
    if y.device.type == "cpu" and len(y) <= SMALL:
        found = _together(tuple(blocks), x, y.numpy()[None], gx, gy.numpy(), before)
        return with_model(_without_step(found, ~known))

    def there(vector: Array) -> torch.Tensor:
        return torch.from_numpy(vector.copy()).to(y.device)

    return np.stack(
        [
            products(blocks, there(x[i]), y, there(gx[i]), gy[i], there(before[i]) if known[i] else None)
            for i in range(len(x))
        ]
    )


def slopes(blocks: Sequence[Block], gradient: torch.Tensor, d: torch.Tensor) -> Floats:
    """⟨gradient, d⟩ per block, float64, shape ``(1 + blocks,)``; the model first."""
    sums = torch.zeros(len(blocks), dtype=torch.float64, device=d.device)
    for start, stop, inside in _pieces(tuple(blocks)):
        products = gradient[start:stop].double() * d[start:stop].double()
        for k, a, b in inside:
            sums[k] += products[a - start : b - start].sum()
    return with_model(sums.cpu().numpy()[:, None])[:, 0]


def dot(a: torch.Tensor, b: torch.Tensor) -> float:
    """⟨a, b⟩ in float64."""
    starts = range(0, len(a), PIECE)
    return math.fsum(float(torch.dot(a[i : i + PIECE].double(), b[i : i + PIECE].double())) for i in starts)


def block_names(manifest: Manifest) -> tuple[str, ...]:
    """``model``, then the tensors, named as in the geometry table: one that is itself called model gets a suffix."""
    return ("model", *(f"{b.name} (parameter)" if b.name == "model" else b.name for b in manifest.blocks))


def with_model(values: Floats) -> Floats:
    """Shape ``(…, blocks, n)`` with the sum over blocks as a first row."""
    return np.concatenate([values.sum(axis=-2, keepdims=True), values], axis=-2)


def _together(blocks: tuple[Block, ...], x: Array, y: Array, gx: Array, gy: Array, before: Array) -> Floats:
    """Products of rows, shape ``(n, blocks, 6)``; what is widened at once stays in the cache."""
    found = np.zeros((len(x), len(blocks), len(_AT)))
    room = np.empty((4, len(x), min(WIDE, x.shape[1])))
    for start, stop, inside in _pieces(blocks, WIDE):
        d, dg, at_y, step = room[:, :, : stop - start]
        at_y[:] = gy[:, start:stop]
        np.subtract(gx[:, start:stop], at_y, out=dg)
        np.subtract(x[:, start:stop], y[:, start:stop], out=d, dtype=np.float64)
        np.subtract(x[:, start:stop], before[:, start:stop], out=step, dtype=np.float64)
        for k, a, b in inside:
            part = slice(a - start, b - start)
            d_k, dg_k, y_k, sums = d[:, part], dg[:, part], at_y[:, part], found[:, k]
            squares = _dots(y_k, y_k)
            sums[:, 0] += _dots(y_k, d_k)
            sums[:, 1] += _dots(dg_k, d_k)
            sums[:, 2] += _dots(dg_k, dg_k)
            sums[:, 3] += squares
            sums[:, 4] += _dots(y_k, dg_k) + squares  # gx = dg + gy
            sums[:, 5] += _dots(y_k, step[:, part])
    return found


def _dots(a: Floats, b: Floats) -> Floats:
    """Of each row; numpy 1 has no vecdot, and this is BLAS's too."""
    found: Floats = np.matmul(a[:, None, :], b[:, :, None])[:, 0, 0]
    return found


def _without_step(values: Floats, without: npt.NDArray[np.bool_]) -> Floats:
    values[without, :, -1] = np.nan
    return values


@cache
def _pieces(blocks: tuple[Block, ...], piece: int = PIECE) -> list[tuple[int, int, list[tuple[int, int, int]]]]:
    """Stretches of at most ``piece`` numbers, each with its parts of blocks: ``(block, start, stop)``."""
    size = sum(block.size for block in blocks)
    found = []
    for start in range(0, size, piece):
        stop = min(start + piece, size)
        ends = ((k, max(start, b.offset), min(stop, b.offset + b.size)) for k, b in enumerate(blocks))
        found.append((start, stop, [(k, a, b) for k, a, b in ends if a < b]))
    return found
