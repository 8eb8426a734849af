"""How far rounding alone can move a formula, so that noise of the arithmetic is never read as a finding.

The tolerance of a loss difference is max(3√2 σ, u (|f(x)| + |f(y)|)) + u ‖g‖ ‖d‖, with σ the standard deviation of a
repeated evaluation of the loss. A trace repeats no evaluation, so σ is taken at its least: one unit roundoff of the
loss. Low-precision arithmetic inside the model (autocast) makes the true noise larger than this.
"""

import math

import polars as pl

from analysis.columns import LOSSES, d_d, gx_d, gx_gx, gy_gy, loss_x, loss_y, u_loss, u_vector

ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Unit roundoff by dtype name: the largest relative error of one rounding to nearest."""

_slope = u_vector * (gx_gx * d_d).sqrt()

loss_difference_rounding: pl.Expr = 3 * math.sqrt(2) * u_loss * pl.max_horizontal(loss_x.abs(), loss_y.abs()) + _slope
"""Rounding of a formula with f(x) − f(y) and a slope in it, in units of loss."""

gradient_difference_rounding: pl.Expr = u_vector * (gx_gx.sqrt() + gy_gy.sqrt())
"""Rounding of ‖∇f(x) − ∇f(y)‖: two gradients, each stored with its own error."""

slope_rounding: pl.Expr = _slope
"""Rounding of the slope ⟨∇f(x), x − y⟩."""


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
