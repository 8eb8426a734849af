"""The α-β condition: slopes towards a reference point against both losses, at given constants and all feasible ones."""

import numpy as np
import numpy.typing as npt

from analysis.columns import Units, coupled_decay, gx_d, loss_x, loss_y, y_y
from analysis.decay import decay_rise, decay_slope, regularized
from analysis.metric import Claim, Metric
from analysis.rounding import loss_difference_rounding, slope_rounding
from analysis.series import running_max, running_mean

Floats = npt.NDArray[np.float64]
_MARGIN = 0.1  # the paper's grid keeps α ≥ β + 0.1
_above = loss_x - loss_y


def _claim(alpha: float, beta: float, says: str) -> Claim:
    return Claim(
        name=f"alpha {alpha:g}, beta {beta:g}",
        at_least=0,
        quantity=gx_d - alpha * _above + beta * loss_x,
        tolerance=slope_rounding + max(1.0, alpha + beta) * loss_difference_rounding,
        says=f"Every minibatch loss f(·, z_t) satisfies ⟨∇f(x_t), x_t − x_r⟩ ≥ {alpha:g} (f(x_t) − f(x_r)) − {beta:g} "
        f"f(x_t) at every recorded step, with 0 for its smallest value{says}. It depends on no norm.",
        caveat="Other constants may do: a violation does not refute the condition, only these two numbers, and no "
        "violation is about this path alone. With α and β both larger by c the condition is weaker by c f(x_r), so "
        "that some pair always does: only the smallest β informs.",
    )


metric = Metric(
    name="alpha_beta",
    family="B",
    catalogue=("B7",),
    title="Smallest β of the α-β condition with α = β + 0.1",
    paper="Islamov et al. (2024), arXiv:2410.12455, definition 1: α > β > 0",
    formula="max(0, (0.1 (f(x) − f(x_r)) − ⟨∇f(x), x − x_r⟩) / f(x_r))",
    units=Units(),
    value=((_MARGIN * _above - gx_d) / loss_y).clip(lower_bound=0),
    pairings=("reference",),
    blocks="no",
    tolerance=(_MARGIN * loss_difference_rounding + slope_rounding) / loss_y.abs(),
    series=(running_max(), running_mean()),
    variants=(
        regularized(
            ((_MARGIN * (_above + decay_rise) - gx_d - decay_slope) / (loss_y + coupled_decay / 2 * y_y)).clip(
                lower_bound=0
            )
        ),
    ),
    claims=(_claim(1, 0, ", which is star-convexity"), _claim(2.5, 2, "")),
    caveats=("For losses at least 0. The largest value over a run is what a run of this β needs, and grows with it.",),
)


def feasible(slope: Floats, loss: Floats, reference: Floats, largest: float = 10) -> Floats:
    """Corners ``(α, β)`` of the constants in ``[0, largest]²`` with α ≥ β that hold at every step, shape ``(k, 2)``.

    Args:
        slope, loss, reference: ⟨∇f(x_t), x_t − x_r⟩, f(x_t, z_t) and f(x_r, z_t), each ``(n,)`` and finite.
        largest: of the constants looked at.

    Returns:
        The corners of a convex polygon in order; none if no constants hold.

    Example:
        On x²/2 around 0, α = 2 holds with any β, and more than 2 with β = α − 2.

        >>> x = np.array([1.0, 2.0])
        >>> feasible(x * x, x * x / 2, 0 * x, largest=4).round(12).tolist()
        [[0.0, 0.0], [2.0, 0.0], [4.0, 2.0], [4.0, 4.0]]
    """
    corners = np.array([[0.0, 0.0], [largest, 0.0], [largest, largest]])
    normals = np.column_stack([-(loss - reference), loss])  # of slope + normal · (α, β) ≥ 0
    scale = np.maximum(np.abs(slope), np.abs(normals).max(axis=1) * largest)
    for _ in range(len(slope)):
        over = slope[:, None] + normals @ corners.T
        worst = int(np.argmin(over.min(axis=1) / np.where(scale > 0, scale, 1)))
        if not len(corners) or over[worst].min() >= -1e-12 * scale[worst]:
            break
        corners = _cut(corners, over[worst])
    return corners


def _cut(corners: Floats, over: Floats) -> Floats:
    kept = []
    for i in range(len(corners)):
        j = (i + 1) % len(corners)
        kept += [corners[i]] if over[i] >= 0 else []
        if over[i] * over[j] < 0:
            kept.append(corners[i] + (corners[j] - corners[i]) * over[i] / (over[i] - over[j]))
    return np.array(kept).reshape(-1, 2)
