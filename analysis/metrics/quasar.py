"""Quasar-convexity: the share of the loss above the reference that the slope accounts for, step by step."""

import polars as pl

from analysis.columns import Units, gx_d, loss_x, loss_y, value
from analysis.decay import decay_rise, decay_slope, regularized
from analysis.metric import Claim, Metric
from analysis.rounding import loss_difference_rounding, slope_rounding
from analysis.series import Series, exponential_mean, running_mean

_above = loss_x - loss_y
_lower = _above.is_finite() & (_above <= loss_difference_rounding)
_ratio = (gx_d + 0 * _above) / _above  # an infinite loss gives no ratio
_decayed = _above + decay_rise
_lower_decayed = _decayed.is_finite() & (_decayed <= loss_difference_rounding)

metric = Metric(
    name="quasar",
    family="B",
    catalogue=("B3",),
    title="Quasar-convexity constant of each step",
    paper="Hinder, Sidford, Sohoni (2020), arXiv:1906.11985: f(x_*) ≥ f(x) + ⟨∇f(x), x_* − x⟩/γ, 0 < γ ≤ 1",
    formula="⟨∇f(x), x − x_r⟩ / (f(x) − f(x_r)) where f(x) > f(x_r)",
    units=Units(),
    value=pl.when(~_lower).then(_ratio),  # ≥ γ; ≥ 1 where star-convex
    pairings=("reference",),
    blocks="no",
    ratio=(pl.when(~_lower).then(gx_d), pl.when(~_lower).then(_above)),
    tolerance=(slope_rounding + _ratio.abs() * loss_difference_rounding) / _above.abs(),
    series=(
        running_mean(),
        exponential_mean(0.99),
        Series("running_min", "running minimum", value.fill_nan(None).cum_min(), "extreme"),
    ),
    variants=(regularized(pl.when(~_lower_decayed).then((gx_d + decay_slope + 0 * _decayed) / _decayed)),),
    claims=(
        Claim(
            name="quasar-convex at 95 % of the steps",
            at_least=0,
            over="quantile",
            at_quantile=0.05,
            null_value=0.0,
            says="The minibatch losses f(·, z_t) are quasar-convex with some constant, seen from 95 % of the recorded "
            "steps: among steps with f(x_t, z_t) above f(x_r, z_t) by more than rounding, the 5 % quantile of the "
            "constant is at least 0. It depends on no norm.",
            caveat="Steps at which the reference is no better are left out, so that a poor reference is judged by few "
            "steps. It does not refute quasar-convexity of the population loss around its minimiser, and a reference "
            "made of the run carries noise that shifts the constant towards 1 (R3, R5).",
        ),
        Claim(
            name="star-convex at 95 % of the steps",
            at_least=1,
            over="quantile",
            at_quantile=0.05,
            says="The minibatch losses f(·, z_t) are star-convex around the reference point, seen from 95 % of the "
            "recorded steps at which they are above it by more than rounding: the 5 % quantile of the constant is at "
            "least 1. It depends on no norm.",
            caveat="A value below 1 refutes convexity of that minibatch loss between x_t and the reference, up to "
            "rounding; it does not refute star-convexity of the population loss.",
        ),
    ),
    caveats=(
        "On |x|^p around 0 the constant is p everywhere; on quadratics around the minimiser 2.",
        "Steps with f(x) not above f(x_r) count as not measured.",
    ),
)
