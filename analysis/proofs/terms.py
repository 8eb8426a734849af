"""Terms and lines that several proofs share."""

import polars as pl

from analysis.proving.proof import Line, Need
from analysis.rounding import GRADIENT_ERRORS, loss_errors


def always(condition: pl.Expr) -> pl.Expr:
    """Whether it is true at every step; a setting that was not recorded, or that the groups do not share, is not."""
    return condition.fill_null(False).all()


def previous(name: str) -> pl.Expr:
    """A column of the pairing with the previous point."""
    return pl.col(f"previous.{name}")


def reference(name: str) -> pl.Expr:
    """A column of the pairing with the reference point u."""
    return pl.col(f"reference.{name}")


lr, clip, g_g, step_step, slip_room, sums = (pl.col(n) for n in ("lr", "clip", "g_g", "step_step", "slip_room", "sums"))
rate = lr * clip
"""Learning rate of SGD on the gradient as it was recorded, before clipping."""

ee, ge = reference("d_d"), reference("gx_d")
ee_ahead = ee + 2 * reference("d_ahead") + step_step
"""‖x_{t+1} − u‖², by polarisation: no formula of an optimizer in it."""

loss_gap = reference("loss_x") - reference("loss_y")
"""f(x_t) − f(u), on the minibatch of the step."""

loss_gap_rounding = (
    loss_errors(pl.max_horizontal(reference("loss_x").abs(), reference("loss_y").abs()))
    + GRADIENT_ERRORS * pl.col("u_vector") * (g_g * ee).sqrt()
)
MEAN_GAP = (rate * loss_gap).sum() / rate.filter(loss_gap.is_not_null()).sum()
"""Of the steps whose minibatches were evaluated at u; NaN where none was."""

MEAN_GAP_ROUNDING = (rate * loss_gap_rounding).sum() / rate.filter(loss_gap.is_not_null()).sum()
step_change = previous("loss_x") - previous("loss_y")
"""f(x_t) − f(x_{t−1}) on the minibatch z_t: unbiased for F(x_t) − F(x_{t−1})."""

step_change_rounding = (
    loss_errors(pl.max_horizontal(previous("loss_x").abs(), previous("loss_y").abs()))
    + GRADIENT_ERRORS * pl.col("u_vector") * ((previous("gx_gx") + previous("gy_gy")) * previous("d_d")).sqrt()
)

PLAIN_SGD = (
    Need("SGD", optimizers=("SGD",)),
    Need("SGD without momentum and weight decay", always((pl.col("momentum") == 0) & (pl.col("weight_decay") == 0))),
    Need("minimisation, one learning rate for all parameters", ~pl.col("maximize").any() & lr.is_not_null().all()),
    Need("gradients clipped by their norm, if at all", pl.col("clip_value").is_null().all()),
    Need("steps without a random factor", always(pl.col("random_scale").fill_null(1.0) == 1)),
)
"""x_{t+1} = x_t − lr g_t, clipped or not, at any schedule."""

OWN_STEP = Line(
    name="the step is the optimizer's",
    left=pl.col("slip_slip"),
    right=slip_room,
    uses="the optimizer",
    says="x_{t+1} − x_t is the optimizer's formula on the recorded gradients, to rounding",
)

ENERGY = Line(
    name="energy of a step",
    left=ee_ahead,
    right=ee - 2 * rate * ge + rate**2 * g_g,
    relation="=",
    uses="the optimizer",
    says="‖x_{t+1} − u‖² = ‖x_t − u‖² − 2 lr ⟨g_t, x_t − u⟩ + lr² ‖g_t‖²",
    # rounding in the update, then that of the products
    tolerance=2 * (ee_ahead.abs() * slip_room).sqrt() + slip_room + sums * (ee.sqrt() + rate * g_g.sqrt()) ** 2,
)
TELESCOPE = Line(
    name="sum of the energies",
    left=(2 * rate * ge).sum(),
    right=ee.first() - ee_ahead.last() + (rate**2 * g_g).sum(),
    relation="=",
    over="run",
    uses="algebra",
    says="2 Σ lr ⟨g_t, x_t − u⟩ = ‖x_0 − u‖² − ‖x_T − u‖² + Σ lr² ‖g_t‖²",
    tolerance=ENERGY.tolerance.sum(),
)
DROP = Line(
    name="drop the last distance",
    left=(rate * ge).sum(),
    right=(ee.first() + (rate**2 * g_g).sum()) / 2,
    over="run",
    uses="algebra",
    says="Σ lr ⟨g_t, x_t − u⟩ ≤ (‖x_0 − u‖² + Σ lr² ‖g_t‖²) / 2, for ‖x_T − u‖² is not negative",
    tolerance=ENERGY.tolerance.sum(),
)
CONVEXITY = Line(
    name="convexity towards u",
    left=loss_gap,
    right=ge,
    over="mean",
    uses="convexity",
    says="F(x_t) − F(u) ≤ ⟨∇F(x_t), x_t − u⟩, in the mean over the steps weighted by lr",
    weight=rate,
    tolerance=loss_gap_rounding,
)
