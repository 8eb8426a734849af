"""Segments to inner products: what the kernel gives for each step and block, and in which order."""

import numpy as np
import numpy.typing as npt

from analysis.vectors.kernel import Array, Behind, Carried, Vectors, rows
from analysis.vectors.spread import THREADS, Spread, parts_of

PAIR = ("d_d", "gx_d", "gy_d", "dg_d", "dg_dg", "gx_gx", "gy_gy", "gx_gy")
NORMS = ("g_sum", "dg_sum", "d_max")
PATH = ("x_x", "g_x", "x_d", "g_gprev", "d_dprev", "gprev_d")
ALONG = ("gsum_gsum", "g_moved", "wsum_wsum", "wmove_wmove")
NEXT = tuple(f"next {name}" for name in ("gx_d", "dg_d", "dg_dg", "gx_gx", "gx_gy"))
HALVES = ("ga_gb", "ga_ga", "gb_gb")
PRODUCTS = (*PAIR, *NORMS, *PATH, *ALONG, *NEXT, *HALVES)
"""Names of the products of a step; d = x_t − x_{t−1}, gx = g_t, gy the look-back gradient or else g_{t−1}.

``next …`` is about the pair that the step before made, with gx that step's look-ahead gradient. ``g_moved`` is
⟨g_t, x_t − x_0⟩. ``d_max`` is a maximum; all others are additive over coordinates."""

TO_REFERENCE = ("d_d", "gx_d", "d_back", "y_y")
"""Products with a reference point r: ‖x_t − r‖², ⟨g_t, x_t − r⟩, ⟨x_{t−1} − r, x_t − x_{t−1}⟩ and ‖r‖²."""

_MAX = PRODUCTS.index("d_max")
Floats = npt.NDArray[np.float64]


def products(
    vectors: Vectors,
    behind: Behind,
    carried: Carried,
    references: Array,
    pieces: npt.NDArray[np.int64],
    blocks: int,
    spread: Spread = THREADS,
) -> tuple[Floats, Floats]:
    """Inner products of ``n`` consecutive steps in ``d`` dimensions, per block, in float64.

    Args:
        vectors, behind: float32 or float64; where there is no step before, ``behind`` may hold anything.
        carried: brought up to date.
        references: points, shape ``(k, d)``, in the dtype of the vectors.
        pieces: from :func:`analysis.vectors.kernel.cuts`.
        spread: who computes which part of the vectors.

    Returns:
        shape ``(n, 1 + blocks, 29)`` in the order of :data:`PRODUCTS`, and ``(n, 1 + blocks, k, 4)`` in that of
        :data:`TO_REFERENCE`; the model first, then the blocks. Products with a row that is not there hold anything;
        the caller knows which.
    """
    n, k = len(vectors.x), len(references)
    frozen = Vectors(*(_read_only(a) for a in vectors))  # one compiled version serves mapped files and arrays
    x, earlier, g, a = (_read_only(each) for each in behind[:4])
    before = Behind(x, earlier, g, a, behind.has_a)
    points = _read_only(references)

    def part(of_pieces: Array) -> tuple[Floats, Floats]:
        first, last = int(of_pieces[0, 0]), int(of_pieces[-1, 0])  # blocks: most parts have few of them
        sums = np.zeros((n, last - first + 1, len(PRODUCTS)))
        to = np.zeros((n, last - first + 1, k + (k == 1), len(TO_REFERENCE)))  # the kernel takes two or three at a time
        rows(frozen, before, carried, points, of_pieces - [first, 0, 0], sums, to)
        to[..., 2] -= sums[..., :1]  # ⟨y − r, d⟩ = ⟨x − r, d⟩ − ‖d‖²
        return sums, to[:, :, :k]

    out, ref = np.zeros((n, blocks, len(PRODUCTS))), np.zeros((n, blocks, k, len(TO_REFERENCE)))
    for of_pieces, (sums, to) in spread(part, parts_of(pieces)):
        of = slice(int(of_pieces[0, 0]), int(of_pieces[-1, 0]) + 1)
        largest = np.maximum(out[:, of, _MAX], sums[..., _MAX])
        out[:, of] += sums
        out[:, of, _MAX] = largest
        ref[:, of] += to
    ref[..., 3] = ref[:1, ..., 3]  # the kernel gives it once
    of_all = _with_model(out)
    of_all[:, 0, _MAX] = out[..., _MAX].max(axis=1, initial=0.0)
    return of_all, _with_model(ref)


def _with_model(values: Floats) -> Floats:
    """Additive over coordinates: the model is the sum of its blocks."""
    return np.concatenate([values.sum(axis=1, keepdims=True), values], axis=1)


def _read_only(array: Array) -> Array:
    view = np.require(array, requirements=["C", "A"]).view()
    view.setflags(write=False)
    return view
