"""The one pass over the vectors: inner products of each step, per block, in double precision.

A step's vectors are visited in pieces that stay in the cache, so every number is read from memory once however many
products it enters. Differences are formed before the products, in float64: ``gg - 2 gh + hh`` would cancel.
"""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

PAIR = ("d_d", "gx_d", "gy_d", "dg_d", "dg_dg", "gx_gx", "gy_gy", "gx_gy")
PATH = ("x_x", "g_x", "x_d", "g_gprev", "d_dprev")
PIECE = 1 << 12  # elements; the vectors of a piece fit the cache

Array = npt.NDArray[Any]

# sums may be reordered, which vectorises them; NaN and infinity keep their meaning
_jit = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")


@_jit
def _piece(x: Array, y: Array, w: Array, g: Array, h: Array, gp: Array, pair: Array, path: Array) -> None:
    dd = gxd = gyd = qd = qq = gg = hh = gh = xx = gx = xd = g1 = d1 = 0.0
    for i in range(x.size):
        a, b = np.float64(x[i]), np.float64(y[i])
        u, v = np.float64(g[i]), np.float64(h[i])
        d, q = a - b, u - v
        dd += d * d
        gxd += u * d
        gyd += v * d
        qd += q * d
        qq += q * q
        gg += u * u
        hh += v * v
        gh += u * v
        xx += a * a
        gx += u * a
        xd += a * d
        g1 += u * np.float64(gp[i])
        d1 += d * (b - np.float64(w[i]))
    pair[0] += dd
    pair[1] += gxd
    pair[2] += gyd
    pair[3] += qd
    pair[4] += qq
    pair[5] += gg
    pair[6] += hh
    pair[7] += gh
    path[0] += xx
    path[1] += gx
    path[2] += xd
    path[3] += g1
    path[4] += d1


@_jit
def _rows(X: Array, G: Array, H: Array, x1: Array, x2: Array, g1: Array, cuts: Array, pair: Array, path: Array) -> None:
    for p in range(cuts.shape[0]):  # pieces outside, steps inside: the last step's piece is still in the cache
        k, a, b = cuts[p, 0], cuts[p, 1], cuts[p, 2]
        for t in range(X.shape[0]):
            y = X[t - 1] if t > 0 else x1
            gp = G[t - 1] if t > 0 else g1
            w = X[t - 2] if t > 1 else (x1 if t == 1 else x2)
            _piece(X[t][a:b], y[a:b], w[a:b], G[t][a:b], H[t][a:b], gp[a:b], pair[t, k], path[t, k])


def cuts(sizes: list[int]) -> npt.NDArray[np.int64]:
    """Pieces of at most :data:`PIECE` elements, none across two blocks: rows ``(block, start, stop)``."""
    rows, at = [], 0
    for block, size in enumerate(sizes):
        rows += [(block, a, min(a + PIECE, at + size)) for a in range(at, at + size, PIECE)]
        at += size
    return np.array(rows, np.int64).reshape(-1, 3)


def products(
    x: Array, g: Array, gy: Array, before: tuple[Array, Array, Array], pieces: npt.NDArray[np.int64], blocks: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Inner products of ``n`` consecutive steps in ``d`` dimensions, per block.

    Args:
        x, g: points and gradients, shape ``(n, d)``, float32 or float64.
        gy: gradients at the previous point, shape ``(n, d)``; pass ``g`` shifted by a row where none were recorded.
        before: the point one step and two steps before the first row, and the gradient one step before, shape ``(d,)``.
        pieces: from :func:`cuts`.

    Returns:
        shape ``(n, blocks, 8)`` in the order of :data:`PAIR`, and ``(n, blocks, 5)`` in that of :data:`PATH`; float64.
        Products with a row that is not there hold garbage; the caller knows which.
    """
    pair = np.zeros((len(x), blocks, len(PAIR)))
    path = np.zeros((len(x), blocks, len(PATH)))
    frozen = [_read_only(a) for a in (x, g, gy, *before)]  # one compiled version serves mapped files and arrays
    X, G, H, x1, x2, g1 = frozen
    _rows(X, G, H, x1, x2, g1, pieces, pair, path)
    return pair, path


def _read_only(array: Array) -> Array:
    view = np.require(array, requirements=["C", "A"]).view()
    view.setflags(write=False)
    return view
