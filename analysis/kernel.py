"""The one pass over the vectors: what is compiled. Sums in double precision of every step and piece.

A step's vectors are visited in pieces that stay in the cache, so every number is read from memory once however many
products it enters. Differences are formed before the products, in float64: ``gg - 2 gh + hh`` would cancel.
"""

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

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

    ``x0`` is the first point and ``total`` the sum of all gradients so far, ``xw`` and ``window`` the same since the
    window opened; shape ``(d,)``, sums in float64. ``opens`` says at which of the ``n`` steps a window begins.
    """

    x0: Array
    xw: Array
    total: Array
    window: Array
    opens: Array


def cuts(sizes: list[int]) -> npt.NDArray[np.int64]:
    """Pieces of at most :data:`PIECE` elements, none across two blocks: rows ``(block, start, stop)``."""
    found, at = [], 0
    for block, size in enumerate(sizes):
        found += [(block, a, min(a + PIECE, at + size)) for a in range(at, at + size, PIECE)]
        at += size
    return np.array(found, np.int64).reshape(-1, 3)


@_jit
def _step(
    x: Array,
    y: Array,
    w: Array,
    g: Array,
    h: Array,
    gp: Array,
    x0: Array,
    xw: Array,
    total: Array,
    window: Array,
    out: Array,
) -> None:
    dd = gxd = gyd = qd = qq = gg = hh = gh = xx = gx = xd = g1 = d1 = gpd = 0.0
    g_sum = q_sum = tt = moved = ww = mm = 0.0
    largest = np.int64(0)  # of the bits: non-negative numbers are in the order of their bits, NaN the largest
    for i in range(x.size):
        a, b = np.float64(x[i]), np.float64(y[i])
        u, v, before = np.float64(g[i]), np.float64(h[i]), np.float64(gp[i])
        d, q, m = a - b, u - v, a - np.float64(xw[i])
        t, s = total[i] + u, window[i] + u
        total[i], window[i] = t, s
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
        g1 += u * before
        d1 += d * (b - np.float64(w[i]))
        gpd += before * d
        largest = max(largest, np.float64(abs(d)).view(np.int64))
        g_sum += abs(u)
        q_sum += abs(q)
        tt += t * t
        moved += u * (a - np.float64(x0[i]))
        ww += s * s
        mm += m * m
    sums = (dd, gxd, gyd, qd, qq, gg, hh, gh, xx, gx, xd, g1, d1, gpd, g_sum, q_sum, tt, moved, ww, mm)
    for k, part in enumerate(sums):
        out[k] += part
    out[20] = np.int64(max(largest, np.float64(out[20]).view(np.int64))).view(np.float64)


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
def _references(x: Array, y: Array, g: Array, r0: Array, r1: Array, r2: Array, r3: Array, out: Array) -> None:
    dd = e0e0 = g_e0 = d_e0 = e1e1 = g_e1 = d_e1 = e2e2 = g_e2 = d_e2 = e3e3 = g_e3 = d_e3 = 0.0
    for i in range(x.size):  # four at a time: what they share is read and converted once
        a, u = np.float64(x[i]), np.float64(g[i])
        d, e0, e1 = a - np.float64(y[i]), a - np.float64(r0[i]), a - np.float64(r1[i])
        e2, e3 = a - np.float64(r2[i]), a - np.float64(r3[i])
        dd += d * d
        e0e0 += e0 * e0
        g_e0 += u * e0
        d_e0 += d * e0
        e1e1 += e1 * e1
        g_e1 += u * e1
        d_e1 += d * e1
        e2e2 += e2 * e2
        g_e2 += u * e2
        d_e2 += d * e2
        e3e3 += e3 * e3
        g_e3 += u * e3
        d_e3 += d * e3
    for j, (ee, ge, de) in enumerate(((e0e0, g_e0, d_e0), (e1e1, g_e1, d_e1), (e2e2, g_e2, d_e2), (e3e3, g_e3, d_e3))):
        out[j, 0] += ee
        out[j, 1] += ge
        out[j, 2] += de - dd  # ⟨y − r, d⟩


@_jit
def rows(v: Vectors, b: Behind, c: Carried, refs: Array, pieces: Array, out: Array, ref: Array) -> None:
    """Add the products of every step and piece to ``out`` and ``ref``; :mod:`analysis.products` says which."""
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
                c.window[i:j] = 0.0
                c.xw[i:j] = x
            _step(x, y, w, g, h, gp, c.x0[i:j], c.xw[i:j], c.total[i:j], c.window[i:j], out[t, k])
            if b.has_a if t == 0 else v.has_a[t - 1]:
                _next(x, y, (v.a[t - 1] if t > 0 else b.a)[i:j], gp, out[t, k, 21:])
            if v.has_halves[t]:
                _halves(v.ga[t][i:j], v.gb[t][i:j], out[t, k, 26:])
            for r in range(0, last + 1, 4):
                r1, r2, r3 = min(r + 1, last), min(r + 2, last), min(r + 3, last)
                _references(x, y, g, refs[r, i:j], refs[r1, i:j], refs[r2, i:j], refs[r3, i:j], ref[t, k, r : r + 4])
