"""The one pass over the vectors: what is compiled. Sums in double precision of every step and piece.

A step's vectors are visited in pieces that stay in the cache, so every number is read from memory once however many
products it enters. Differences are formed before the products, in float64: ``gg - 2 gh + hh`` would cancel.
"""

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]
from numba import float64
from numba.extending import intrinsic

PIECE = 1 << 13  # elements; the vectors of a piece fit the cache

Array = npt.NDArray[Any]

# sums may be reordered, which vectorises them; NaN and infinity keep their meaning
_jit = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")


class Vectors(NamedTuple):
    """Streams of ``n`` consecutive steps, shape ``(n, d)`` or ``(0, d)``, and where the optional ones were recorded."""

    x: Array
    g: Array
    h: Array
    a: Array
    ga: Array
    gb: Array
    has_h: Array
    has_a: Array
    has_halves: Array


class Behind(NamedTuple):
    """The step before the first, shape ``(d,)``: its point, the point before that, gradient, look-ahead gradient."""

    x: Array
    earlier: Array
    g: Array
    a: Array
    has_a: bool


class Carried(NamedTuple):
    """What grows along a stretch of steps; the kernel brings it up to date.

    ``x0`` is the first point, ``xw`` the one where the window opened, ``past`` the sum of all gradients before that and
    ``window`` of those since; shape ``(d,)``, sums in float64. ``opens`` says at which of the ``n`` steps a window
    begins.
    """

    x0: Array
    xw: Array
    past: Array
    window: Array
    opens: Array


def cuts(sizes: list[int]) -> npt.NDArray[np.int64]:
    """Pieces of at most :data:`PIECE` elements, none across two blocks: rows ``(block, start, stop)``."""
    found, at = [], 0
    for block, size in enumerate(sizes):
        found += [(block, a, min(a + PIECE, at + size)) for a in range(at, at + size, PIECE)]
        at += size
    return np.array(found, np.int64).reshape(-1, 3)


@intrinsic
def _larger(_: Any, a: Any, b: Any) -> Any:
    """The larger one of two numbers; of a NaN, anything. The loops that follow are vectorised only because of that."""

    def call(__: Any, builder: Any, ___: Any, numbers: Any) -> Any:
        double = ir.DoubleType()
        function = builder.module.declare_intrinsic("llvm.maxnum", [double], ir.FunctionType(double, [double, double]))
        return builder.call(function, numbers, fastmath=("nnan", "nsz"))

    return float64(float64, float64), call


# A step takes two loops. In one, the sums would not fit the sixteen registers, and each would go to memory and back for
# every number: 2.4 times the time.


@_jit
def pair(x: Array, y: Array, g: Array, h: Array, out: Array) -> None:
    """Add to ``out`` eight products, the 1-norms of g and g − h, and the largest of d: what a pair has to say."""
    dd = gxd = gyd = qd = qq = gg = hh = gh = g_sum = q_sum = largest = 0.0
    for i in range(x.size):
        u, v = np.float64(g[i]), np.float64(h[i])
        d, q = np.float64(x[i]) - np.float64(y[i]), u - v
        dd += d * d
        gxd += u * d
        gyd += v * d
        qd += q * d
        qq += q * q
        gg += u * u
        hh += v * v
        gh += u * v
        g_sum += abs(u)
        q_sum += abs(q)
        largest = _larger(largest, abs(d))  # type: ignore[call-arg]
    for k, part in enumerate((dd, gxd, gyd, qd, qq, gg, hh, gh, g_sum, q_sum)):
        out[k] += part
    if np.isnan(dd):  # then a difference was
        out[10] = np.nan
    elif not np.isnan(out[10]):
        out[10] = max(out[10], largest)


@_jit
def _along(
    x: Array, y: Array, w: Array, g: Array, gp: Array, x0: Array, xw: Array, past: Array, window: Array, out: Array
) -> None:
    xx = gx = xd = g1 = d1 = gpd = tt = moved = ww = mm = 0.0
    for i in range(x.size):
        a, b, u, before = np.float64(x[i]), np.float64(y[i]), np.float64(g[i]), np.float64(gp[i])
        d, m, s = a - b, a - np.float64(xw[i]), window[i] + u
        window[i] = s
        t = past[i] + s
        xx += a * a
        gx += u * a
        xd += a * d
        g1 += u * before
        d1 += d * (b - np.float64(w[i]))
        gpd += before * d
        tt += t * t
        moved += u * (a - np.float64(x0[i]))
        ww += s * s
        mm += m * m
    for k, part in enumerate((xx, gx, xd, g1, d1, gpd, tt, moved, ww, mm)):
        out[k] += part


@_jit
def _open(x: Array, xw: Array, past: Array, window: Array) -> None:
    for i in range(x.size):
        xw[i] = x[i]
        past[i] += window[i]
        window[i] = 0.0


@_jit
def _next(x: Array, y: Array, a: Array, g: Array, out: Array) -> None:
    gxd = qd = qq = aa = ag = 0.0
    for i in range(x.size):
        u, v = np.float64(a[i]), np.float64(g[i])
        d, q = np.float64(x[i]) - np.float64(y[i]), u - v
        gxd += u * d
        qd += q * d
        qq += q * q
        aa += u * u
        ag += u * v
    for k, part in enumerate((gxd, qd, qq, aa, ag)):
        out[k] += part


@_jit
def _halves(a: Array, b: Array, out: Array) -> None:
    ab = aa = bb = 0.0
    for i in range(a.size):
        u, v = np.float64(a[i]), np.float64(b[i])
        ab += u * v
        aa += u * u
        bb += v * v
    for k, part in enumerate((ab, aa, bb)):
        out[k] += part


@_jit
def _three(x: Array, y: Array, g: Array, r0: Array, r1: Array, r2: Array, out: Array) -> None:
    e0e0 = g_e0 = d_e0 = e1e1 = g_e1 = d_e1 = e2e2 = g_e2 = d_e2 = 0.0
    for i in range(x.size):  # what they share is read and converted once; with a fourth, the registers do not suffice
        a, u = np.float64(x[i]), np.float64(g[i])
        d = a - np.float64(y[i])
        e0, e1, e2 = a - np.float64(r0[i]), a - np.float64(r1[i]), a - np.float64(r2[i])
        e0e0 += e0 * e0
        g_e0 += u * e0
        d_e0 += d * e0
        e1e1 += e1 * e1
        g_e1 += u * e1
        d_e1 += d * e1
        e2e2 += e2 * e2
        g_e2 += u * e2
        d_e2 += d * e2
    for j, parts in enumerate(((e0e0, g_e0, d_e0), (e1e1, g_e1, d_e1), (e2e2, g_e2, d_e2))):
        for k, part in enumerate(parts):
            out[j, k] += part


@_jit
def _two(x: Array, y: Array, g: Array, r0: Array, r1: Array, out: Array) -> None:
    e0e0 = g_e0 = d_e0 = e1e1 = g_e1 = d_e1 = 0.0
    for i in range(x.size):
        a, u = np.float64(x[i]), np.float64(g[i])
        d = a - np.float64(y[i])
        e0, e1 = a - np.float64(r0[i]), a - np.float64(r1[i])
        e0e0 += e0 * e0
        g_e0 += u * e0
        d_e0 += d * e0
        e1e1 += e1 * e1
        g_e1 += u * e1
        d_e1 += d * e1
    for j, parts in enumerate(((e0e0, g_e0, d_e0), (e1e1, g_e1, d_e1))):
        for k, part in enumerate(parts):
            out[j, k] += part


@_jit
def _square(x: Array) -> float:
    xx = 0.0
    for i in range(x.size):
        a = np.float64(x[i])
        xx += a * a
    return xx


@_jit
def rows(v: Vectors, b: Behind, c: Carried, refs: Array, pieces: Array, out: Array, ref: Array) -> None:
    """Add the products of every step and piece to ``out`` and ``ref``; :mod:`analysis.vectors.products` says which."""
    n, last = v.x.shape[0], refs.shape[0] - 1
    for p in range(pieces.shape[0]):  # pieces outside, steps inside: the last step's piece is still in the cache
        k, i, j = pieces[p, 0], pieces[p, 1], pieces[p, 2]
        for t in range(n):
            x, g = v.x[t][i:j], v.g[t][i:j]
            y = (v.x[t - 1] if t > 0 else b.x)[i:j]
            w = (v.x[t - 2] if t > 1 else (b.x if t == 1 else b.earlier))[i:j]
            gp = (v.g[t - 1] if t > 0 else b.g)[i:j]
            h = v.h[t][i:j] if v.has_h[t] else gp  # unpaired: the gradient of the step before, on another minibatch
            if c.opens[t]:
                _open(x, c.xw[i:j], c.past[i:j], c.window[i:j])
            pair(x, y, g, h, out[t, k])
            _along(x, y, w, g, gp, c.x0[i:j], c.xw[i:j], c.past[i:j], c.window[i:j], out[t, k, 11:])
            if b.has_a if t == 0 else v.has_a[t - 1]:
                _next(x, y, (v.a[t - 1] if t > 0 else b.a)[i:j], gp, out[t, k, 21:])
            if v.has_halves[t]:
                _halves(v.ga[t][i:j], v.gb[t][i:j], out[t, k, 26:])
            r = 0
            while r <= last:
                left, r1 = last + 1 - r, min(r + 1, last)
                if left == 3 or left > 4:
                    _three(x, y, g, refs[r, i:j], refs[r1, i:j], refs[r + 2, i:j], ref[t, k, r : r + 3])
                    r += 3
                else:
                    _two(x, y, g, refs[r, i:j], refs[r1, i:j], ref[t, k, r : r + 2])
                    r += 2
        for r in range(last + 1 if n > 0 else 0):  # once for all steps, while the piece is still in the cache
            ref[0, k, r, 3] += _square(refs[r, i:j])
