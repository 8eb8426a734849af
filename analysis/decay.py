"""What coupled weight decay adds between a point and a reference point: the steps descend f + λ‖x‖²/2, not f.

The slope gains λ⟨x, x − x_r⟩ and the loss difference λ(‖x‖² − ‖x_r‖²)/2. Neither inner product is stored; with
⟨x, x_r⟩ = (‖x‖² + ‖x_r‖² − ‖x − x_r‖²)/2 both follow from three squares. The squares of two near points cancel. Each
is summed in double precision over p numbers and off by at most 50 √p of its roundoffs, as the identities of the trace
allow, so that both are off by at most 50 √p · 2⁻⁵³ λ (‖x‖² + ‖x_r‖²)/2. Against the true slope, at most
λ‖x‖‖x − x_r‖, that is 10⁻⁷ for a million parameters whose distance to the reference is 10⁻⁴ of their norm.
"""

import polars as pl

from analysis.columns import coupled_decay, d_d, g_x, gx_gx, x_x, y_y
from analysis.metric import Variant

decay_rise: pl.Expr = coupled_decay / 2 * (x_x - y_y)
"""λ(‖x‖² − ‖x_r‖²)/2, in units of loss; null without coupled weight decay or where ‖x_r‖² is not known."""

decay_slope: pl.Expr = decay_rise + coupled_decay / 2 * d_d
"""λ⟨x, x − x_r⟩, in units of loss."""

decayed_gradient: pl.Expr = gx_gx + 2 * coupled_decay * g_x + coupled_decay**2 * x_x
"""‖∇f(x) + λx‖²."""


def regularized(value: pl.Expr) -> Variant:
    """The variant of a metric that is about f + λ‖x‖²/2."""
    return Variant("regularized", "of the loss plus λ‖x‖²/2, λ the weight decay that is added to the gradient", value)
