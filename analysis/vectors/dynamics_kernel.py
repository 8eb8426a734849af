"""The pass over the vectors that repeats the optimizer's formula: per coordinate, in double precision.

A row of the kernel is one update: the point ``y`` that it leaves, the gradient ``g`` there, and the point ``x`` that it
reaches. The numbers of the formula (:data:`analysis.optimizers.NUMBERS`) come per row and block.
"""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from analysis.optimizers import (
    AHEAD,
    ALONG,
    APART,
    CLAMP,
    CLIP,
    COUPLE,
    DECAY,
    EPS,
    HAT,
    KEEP_M,
    KEEP_V,
    RATE,
    ROOT,
    SCALE,
    TAKE_M,
    TAKE_V,
)

SUMS = (
    *("slip", "slip_scaled", "m_m", "g_m", "g_mprev", "dd_adam", "qq_adam", "mhat_e", "decay_e", "ee_adam", "ee_ahead"),
    *("slip_e", "y_y", "x_x", "u_u", "own_own", "md_md", "ud_ud"),
)
"""What is summed per row and block; the last six only bound the rounding.

``u_u`` sums (|clip g| + |couple y|)² for SGD, ``ud_ud`` the same over D² for Adam; ``own_own`` the formula's step
without decay, ``md_md`` m²/D². The others are columns of the path table.
"""
_SLIP, _SCALED, _M_M, _G_M, _G_MPREV = range(5)
_Y_Y, _X_X, _U_U, _OWN_OWN, _MD_MD, _UD_UD = range(12, 18)
CARRIED = ("error", "size", "root")
"""What the bound carries from row to row: the error of m (SGD) or of m/D (Adam), the norm of the same, and ``root``."""

_ROUNDINGS = 4.0  # per term at most three roundings, and one of the scalar in it
_SQUARES = 3.0  # v = keep_v v + take_v u²: two roundings and that of a scalar, at every update
_MEMORIES = 5.0  # v forgets over 1/(1 − β₂) updates; after five times that nothing counts

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

# sums may be reordered, which vectorises them; NaN and infinity keep their meaning
_jit = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")


@_jit
def _momentum(y: Array, g: Array, x: Array, m: Array, given: Array, kept: bool, number: Array, out: Array) -> None:
    """SGD. ``m`` is the buffer, ``given`` the recorded one after the update, used where ``kept``."""
    clip, clamp, couple, keep, take = number[CLIP], number[CLAMP], number[COUPLE], number[KEEP_M], number[TAKE_M]
    along, ahead, rate, scale = number[ALONG], number[AHEAD], number[RATE], number[SCALE]
    slip = scaled = mm = gm = gp = yy = xx = uu = own = 0.0
    for i in range(x.size):
        a, b, c = np.float64(y[i]), np.float64(x[i]), np.float64(g[i])
        before = m[i]
        raw = min(max(clip * c, -clamp), clamp) if clip != 0.0 else 0.0
        u = raw + couple * a
        now = np.float64(given[i]) if kept else keep * before + take * u
        m[i] = now
        move = -rate * (along * now + ahead * u)
        d, size = b - a, abs(raw) + abs(couple * a)
        slip += (d - move) * (d - move)
        scaled += (d - scale * move) * (d - scale * move)
        mm += now * now
        gm += c * now
        gp += c * before
        yy += a * a
        xx += b * b
        uu += size * size
        own += move * move
    out[_SLIP] += slip
    out[_SCALED] += scaled
    out[_M_M] += mm
    out[_G_M] += gm
    out[_G_MPREV] += gp
    out[_Y_Y] += yy
    out[_X_X] += xx
    out[_U_U] += uu
    out[_OWN_OWN] += own


@_jit
def _adam(
    y: Array,
    g: Array,
    x: Array,
    gx: Array,
    h: Array,
    last: Array,
    moments: tuple[Array, Array, Array],
    given: tuple[Array, Array, Array],
    kept: tuple[bool, bool, bool],
    largest: bool,
    number: Array,
    out: Array,
) -> None:
    """Adam; ``gx − h`` is the difference of the gradients at ``x`` and ``y`` on one minibatch, ``last`` the reference.

    ``moments`` are m, v and the largest v so far, ``given`` the recorded ones after the update, used where ``kept``.
    """
    clip, clamp, couple, keep, take = number[CLIP], number[CLAMP], number[COUPLE], number[KEEP_M], number[TAKE_M]
    keep_v, take_v, root, eps = number[KEEP_V], number[TAKE_V], number[ROOT], number[EPS]
    rate, decay, hat, scale, apart = number[RATE], number[DECAY], number[HAT], number[SCALE], number[APART]
    m, v, w = moments
    given_m, given_v, given_w = given
    kept_m, kept_v, kept_w = kept
    slip = scaled = mm = gm = gp = dd = qq = me = xe = ee = en = se = yy = xx = rr = zz = 0.0
    for i in range(x.size):
        a, b, c = np.float64(y[i]), np.float64(x[i]), np.float64(g[i])
        before = m[i]
        raw = min(max(clip * c, -clamp), clamp) if clip != 0.0 else 0.0
        u = raw + couple * a
        now = np.float64(given_m[i]) if kept_m else keep * before + take * u
        second = np.float64(given_v[i]) if kept_v else keep_v * v[i] + take_v * u * u
        m[i] = now
        v[i] = second
        if largest:
            second = np.float64(given_w[i]) if kept_w else max(w[i], second)
            w[i] = second
        metric = root * np.sqrt(second) + eps
        inverse = 1.0 / metric
        ratio, size = now * inverse, (abs(raw) + abs(couple * a)) * inverse
        move = -rate * ratio - decay * a
        d, e, q = b - a, a - np.float64(last[i]), np.float64(gx[i]) - np.float64(h[i])
        miss, f = d - scale * move, e + d
        slip += (d - move) * (d - move)
        scaled += miss * miss
        mm += now * now
        gm += c * now
        gp += c * before
        dd += metric * d * d
        qq += q * q * inverse
        me += now * e
        xe += metric * a * e
        ee += metric * e * e
        en += metric * f * f
        se += metric * miss * e
        yy += a * a
        xx += b * b
        rr += ratio * ratio
        zz += size * size
    me, xe, own = hat * me, apart * xe, rate * rate * rr
    for k, term in enumerate((slip, scaled, mm, gm, gp, dd, qq, me, xe, ee, en, se, yy, xx, 0.0, own, rr, zz)):
        out[k] += term


@_jit
def sgd_rows(
    Y: Array, G: Array, X: Array, m: Array, given: Array, kept: Array, cuts: Array, numbers: Array, sums: Array
) -> None:
    """Updates of SGD, one after the other; adds to ``sums``, shape ``(n, blocks, len(SUMS))``, and moves ``m`` on.

    Args:
        Y, G, X: the points left, their gradients, the points reached, shape ``(n, d)``.
        m: the buffer before the first of them, shape ``(d,)``, float64.
        given: the recorded buffers after each update, shape ``(n, d)``, used in the rows that are ``kept``.
        cuts: pieces from :func:`analysis.vectors.kernel.cuts`.
        numbers: shape ``(n, blocks, len(NUMBERS))``.
    """
    for p in range(cuts.shape[0]):  # pieces outside, steps inside: the piece's moments stay in the cache
        k, a, b = cuts[p, 0], cuts[p, 1], cuts[p, 2]
        for t in range(X.shape[0]):
            mine = given[t] if kept[t] else Y[t]
            _momentum(Y[t][a:b], G[t][a:b], X[t][a:b], m[a:b], mine[a:b], kept[t], numbers[t, k], sums[t, k])


@_jit
def adam_rows(
    Y: Array,
    G: Array,
    X: Array,
    GX: Array,
    H: Array,
    last: Array,
    moments: tuple[Array, Array, Array],
    given: tuple[Array, Array, Array],
    kept: Array,
    largest: Array,
    cuts: Array,
    numbers: Array,
    sums: Array,
) -> None:
    """Updates of Adam as :func:`sgd_rows`; ``moments`` are m, v and w, ``kept`` has shape ``(n, 3)``.

    ``GX`` and ``H`` are the gradients at X and at Y on X's minibatch, ``last`` the reference point, ``largest`` says
    per block whether w counts (amsgrad).
    """
    m, v, w = moments
    for p in range(cuts.shape[0]):
        k, a, b = cuts[p, 0], cuts[p, 1], cuts[p, 2]
        for t in range(X.shape[0]):
            y = Y[t][a:b]
            mine = given[0][t][a:b] if kept[t, 0] else y
            square = given[1][t][a:b] if kept[t, 1] else y
            top = given[2][t][a:b] if kept[t, 2] else y
            _adam(
                *(y, G[t][a:b], X[t][a:b], GX[t][a:b], H[t][a:b], last[a:b]),
                (m[a:b], v[a:b], w[a:b]),
                (mine, square, top),
                (kept[t, 0], kept[t, 1], kept[t, 2]),
                largest[k],
                numbers[t, k],
                sums[t, k],
            )


@_jit
def rooms(
    adam: bool,
    sums: Array,
    numbers: Array,
    counts: Array,
    kept: Array,
    unit: Array,
    rough: Array,
    carried: Array,
    out: Array,
) -> None:
    """How far from the formula rounding alone can take each update: a bound of the norm per row and block, squared.

    Args:
        adam: or SGD.
        sums, numbers: of the rows.
        counts: updates of each block so far, shape ``(n, blocks)``.
        kept: whether m and v were recorded, shape ``(n, 3)``.
        unit: unit roundoff of each block, as trained or as stored, the coarser.
        rough: per block whether the bias corrections are computed in the block's own precision.
        carried: :data:`CARRIED` per block, shape ``(blocks, 3)``; moved on.
        out: shape ``(n, blocks)``.
    """
    for t in range(sums.shape[0]):
        for k in range(sums.shape[1]):
            one, of, u = numbers[t, k], sums[t, k], _ROUNDINGS * unit[k]
            size = np.sqrt(of[_MD_MD]) if adam else np.sqrt(of[_M_M])
            fresh = np.sqrt(of[_UD_UD]) if adam else np.sqrt(of[_U_U])
            keep = abs(one[KEEP_M])
            if adam and carried[k, 2] > 0:  # D may have shrunk since: by √β₂ at most, and by the correction of its bias
                keep *= max(1.0, carried[k, 2] / (one[ROOT] * np.sqrt(one[KEEP_V])))
            error = keep * (carried[k, 0] + u * carried[k, 1]) + u * (abs(one[TAKE_M]) * fresh + size)
            if kept[t, 0]:
                error = u * size
            points = u * (np.sqrt(of[_Y_Y]) + np.sqrt(of[_X_X]))
            step = abs(one[RATE]) * (abs(one[ALONG]) * (error + u * size) + u * abs(one[AHEAD]) * fresh)
            if adam:
                memory = _MEMORIES / (1.0 - one[KEEP_V]) if one[KEEP_V] < 1.0 else np.inf
                square = _ROUNDINGS if kept[t, 1] else _SQUARES * min(counts[t, k], memory)
                bias = u * (one[HAT] + one[ROOT] * one[ROOT]) if rough[k] else 0.0
                step = abs(one[RATE]) * error + np.sqrt(of[_OWN_OWN]) * (u + unit[k] * square / 2 + bias)
            room = points + step
            if one[SCALE] != 1.0:  # the difference is taken, multiplied and added again
                room *= 1.0 + abs(one[SCALE])
            out[t, k] = room * room
            carried[k, 0], carried[k, 1], carried[k, 2] = error, size, one[ROOT]


MOVED, STOOD, ZERO, BROKEN = range(4)
"""Of a block in an update: it moved; it stood still, its gradient not zero; it is zero; it is not finite."""


@_jit
def fates(Y: Array, G: Array, X: Array, spans: Array, out: Array) -> None:
    """What became of each block in each update, :data:`MOVED` and so on; looks no further than it must.

    Args:
        Y, G, X: as in :func:`sgd_rows`.
        spans: first and last-but-one element of each block, shape ``(blocks, 2)``.
        out: shape ``(n, blocks)``.
    """
    for t in range(X.shape[0]):
        for k in range(spans.shape[0]):
            a, b = spans[k, 0], spans[k, 1]
            y, x, g = Y[t], X[t], G[t]
            out[t, k] = ZERO
            for i in range(a, b):
                if x[i] != y[i]:
                    out[t, k] = MOVED
                    break
            if out[t, k] == MOVED:
                continue
            for i in range(a, b):
                if not np.isfinite(g[i]):
                    out[t, k] = BROKEN
                    break
                if g[i] != 0:
                    out[t, k] = STOOD
