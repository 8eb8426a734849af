"""How far rounding alone can move a formula, so that noise of the arithmetic is never read as a finding.

A stored number is off by more than its own rounding: a loss and a gradient round at every operation on the way. The
tolerance of a loss difference is max(3√2 σ_f, u max(|f(x)|, |f(y)|)) + u ‖g‖ ‖d‖ with σ_f the spread of a repeated
evaluation, known once a replay has evaluated recorded losses again, and u some unit roundoffs, the factors below. They
were measured: float32 trainings of a logistic regression, an MLP and a convolutional net, pairs evaluated again in
float64. The largest errors were 449 u of the loss and 60 u of the gradients' norms; the factors leave room. Arithmetic
below the stored precision (autocast), and a device that does not repeat itself, are noisier still: that is what σ_f
finds. A formula loses little by it: where the loss difference is too coarse, the gradients decide.
"""

import polars as pl

from analysis.columns import LOSSES, d_d, gx_d, gx_gx, gy_gy, loss_x, loss_y, sigma_f, u_loss, u_vector

ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Unit roundoff by dtype name: the largest relative error of one rounding to nearest."""

LOSS_ERRORS = 1024
"""Unit roundoffs by which an evaluated loss may be off, relative to itself."""

GRADIENT_ERRORS = 256
"""Unit roundoffs by which an evaluated gradient may be off, relative to its norm."""


def loss_errors(size: pl.Expr, squares: float = 2) -> pl.Expr:
    """How far a sum of evaluated losses may be off, in units of loss.

    That is three standard deviations of a repeated evaluation, or the rounding, where that is more. σ_f is null where
    nothing was replayed; the larger of two is then the other one.

    Args:
        size: of the losses, their absolute values with their factors (of two alike: the larger is enough).
        squares: the squares of the factors, added up; 2 for the difference of two losses.
    """
    return pl.max_horizontal(3 * squares**0.5 * sigma_f, LOSS_ERRORS * u_loss * size)


_slope = GRADIENT_ERRORS * u_vector * (gx_gx * d_d).sqrt()

_losses = loss_errors(pl.max_horizontal(loss_x.abs(), loss_y.abs()))

loss_difference_rounding: pl.Expr = _losses + _slope
"""Rounding of a formula with f(x) − f(y) and the slope ⟨∇f(x), x − y⟩ in it, in units of loss."""

forward_difference_rounding: pl.Expr = _losses + GRADIENT_ERRORS * u_vector * (gy_gy * d_d).sqrt()
"""The same with the slope ⟨∇f(y), x − y⟩."""

gradient_difference_rounding: pl.Expr = GRADIENT_ERRORS * u_vector * (gx_gx.sqrt() + gy_gy.sqrt())
"""Rounding of ‖∇f(x) − ∇f(y)‖: two gradients, each with its own error."""

loss_rounding: pl.Expr = _losses
"""Rounding of the loss difference f(x) − f(y) alone."""

slope_at_y_rounding: pl.Expr = GRADIENT_ERRORS * u_vector * (gy_gy * d_d).sqrt()
"""Rounding of the slope ⟨∇f(y), x − y⟩."""

slope_rounding: pl.Expr = _slope
"""Rounding of the slope ⟨∇f(x), x − y⟩."""


def resolved(gap: pl.Expr, trapezoid: pl.Expr, rounding: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    """A gap with its rounding, taken from the gradients alone where they are finer than the loss difference.

    ``trapezoid`` is what the gap is to third order without a loss difference: ∓⟨∇f(x) − ∇f(y), x − y⟩/2. It stands in
    for the gap where both are smaller than ``rounding``, the gap's own. A gap beyond rounding stands for itself: where
    the loss has a kink, the slopes at the two ends may be equal and the gap far from zero.
    """
    fine = gap.is_finite() & (gap.abs() <= rounding) & (trapezoid.abs() < rounding)
    from_gradients = gradient_difference_rounding * d_d.sqrt()
    return pl.when(fine).then(trapezoid).otherwise(gap), pl.when(fine).then(from_gradients).otherwise(rounding)


def default_tolerance(value: pl.Expr) -> pl.Expr:
    """The tolerance of a formula that names none, by what it reads: a loss, a slope, or neither (50 u |value|)."""
    reads = set(value.meta.root_names())
    if reads & LOSSES:
        return loss_difference_rounding
    if value.meta.eq(gx_d):
        return slope_rounding
    return 50 * u_vector * value.abs()


def roundoff(dtype: str | None) -> float:
    """Unit roundoff of ``dtype`` ("float32", "torch.float32"); of float32 where the name is not known."""
    return ROUNDOFF.get((dtype or "").rpartition(".")[2], ROUNDOFF["float32"])
