"""The unified parametric assumption: quasar-convexity with a slack, outside a small set of outliers."""

import numpy as np
import numpy.typing as npt
import polars as pl

from analysis.columns import Units, gx_d, loss_start, loss_x, loss_y, value
from analysis.metric import Claim, Metric, Variant
from analysis.rounding import loss_difference_rounding, loss_errors, slope_rounding
from analysis.series import exponential_mean, running_mean

SLACK, OUTLIERS = 0.01, 0.05  # of the loss that training began with; of the steps
Floats = npt.NDArray[np.float64]
_above = loss_x - loss_y
_lower = _above.is_finite() & (_above <= loss_difference_rounding)
_quantile = value.quantile(OUTLIERS)


def _constant(slack: float) -> pl.Expr:
    ratio = (gx_d + slack * loss_start + 0 * _above) / _above  # an infinite loss gives no ratio
    return pl.when(~_lower).then(ratio)


_c1 = _constant(SLACK)
_rounding = slope_rounding + SLACK * loss_errors(loss_start.abs(), 1) + _c1.abs() * loss_difference_rounding

metric = Metric(
    name="unified_parametric",
    family="B",
    catalogue=("B8",),
    title="Largest c1 of each step at a slack of 1 % of the first losses",
    paper="After Riabinin, Khaled, Richtárik (2025), arXiv:2502.12329, reconstructed from summaries: "
    "⟨∇f(x), x − x_r⟩ ≥ c1 P(x) − c2 outside a set of outliers, here with P(x) = f(x) − f(x_r)",
    formula="(⟨∇f(x), x − x_r⟩ + c2) / (f(x) − f(x_r)) where f(x) > f(x_r), c2 = 1 % of the mean of the first 10 "
    "losses",
    units=Units(),
    value=_c1,  # ≥ c1
    pairings=("reference",),
    blocks="no",
    ratio=(pl.when(~_lower).then(gx_d + SLACK * loss_start), pl.when(~_lower).then(_above)),
    tolerance=_rounding / _above.abs(),
    series=(running_mean(), exponential_mean(0.99)),
    variants=(
        Variant("without_slack", "with c2 = 0, as quasar has it; the 5 % quantile", _constant(0.0), _quantile),
        Variant("more_slack", "with c2 = 10 % of the first losses; the 5 % quantile", _constant(0.1), _quantile),
    ),
    claims=(
        Claim(
            name="some c1 at 95 % of the steps",
            at_least=0,
            over="quantile",
            at_quantile=OUTLIERS,
            null_value=0.0,
            says="For some c1 ≥ 0 the minibatch losses satisfy ⟨∇f(x_t, z_t), x_t − x_r⟩ ≥ c1 (f(x_t, z_t) − "
            "f(x_r, z_t)) − c2 at 95 % of the recorded steps at which f(x_t, z_t) is above f(x_r, z_t) by more than "
            "rounding, with c2 = 1 % of the mean of the first 10 recorded losses: the 5 % quantile of the largest such "
            "c1 is at least 0. It depends on no norm.",
            caveat="The form is reconstructed from summaries of the paper; 1 % and 5 % are conventions. With more "
            "slack and more outliers every loss satisfies it. A failure does not refute it with other constants or "
            "another reference, and a reference made of the run carries noise that shifts c1 towards 1 (R3, R5).",
        ),
        Claim(
            name="c1 of 1 at 95 % of the steps",
            at_least=1,
            over="quantile",
            at_quantile=OUTLIERS,
            says="The same with c1 = 1, star-convexity up to the slack c2: at 95 % of the recorded steps at which the "
            "minibatch loss is above that at the reference by more than rounding, the largest c1 is at least 1. It "
            "depends on no norm.",
            caveat="A larger slack may hide any violation of star-convexity of that size. A failure does not refute "
            "star-convexity of the population loss.",
        ),
    ),
    caveats=(
        "On a quadratic around its minimiser c1 is 2 + c2/(f(x) − f(x_r)). Steps close to the reference have a large "
        "c1 for the slack alone.",
        "Steps with f(x) not above f(x_r) count as not measured. The c1 of other slacks: fitted in this file.",
    ),
)


def fitted(slope: Floats, above: Floats, slack: Floats, outliers: float = OUTLIERS) -> Floats:
    """The largest c1 at each slack c2 that all steps but a share of ``outliers`` satisfy, shape ``(k,)``.

    Args:
        slope, above: ⟨∇f(x_t), x_t − x_r⟩ and f(x_t, z_t) − f(x_r, z_t), each ``(n,)`` and finite; steps that are not
            above the reference are left out.
        slack: values of c2, shape ``(k,)``.

    Returns:
        At least 0; NaN where not even c1 = 0 will do, and where no step is above the reference.

    Example:
        On x²/2 around 0 the slope is twice the loss: c1 = 2 without a slack, and more with one.

        >>> x = np.linspace(1, 2, 101)
        >>> fitted(x * x, x * x / 2, np.array([0.0, 0.5]), outliers=0).round(3)
        array([2.  , 2.25])
    """
    there = above > 0
    if not there.any():
        return np.full(len(slack), np.nan)
    constants = (slope[there] + slack[:, None]) / above[there]
    found = np.quantile(constants, outliers, axis=1, method="lower")
    return np.where(found < 0, np.nan, found)
