"""Critical sharpness: how far along the recorded step the loss of the whole data falls, as a curvature."""

import polars as pl

from analysis.columns import Units, lr, value
from analysis.columns_of_replays import critical_full
from analysis.metric import Claim, Metric
from analysis.series import exponential_mean, limit

_BELOW = "below 2/lr at 90 % of the steps"
_off = pl.col("critical_full_off")

metric = Metric(
    name="critical_sharpness",
    family="C",
    catalogue=("C11",),
    title="Critical sharpness on the whole data",
    paper="Kalra et al. (2026), arXiv:2601.16979",
    formula="2 / r_c,  r_c = inf {r > 0 : F(x_t + r u) > F(x_t)},  u = (x_{t+1} − x_t) / lr",
    units=Units(loss=1, distance=-2),
    value=critical_full,
    blocks="no",
    tolerance=_off,
    series=(exponential_mean(0.99), limit("two_over_lr", "2 / lr", 2 / lr, claim=_BELOW)),
    claims=(
        Claim(
            name=_BELOW,
            at_most=2,
            over="quantile",
            at_quantile=0.9,
            quantity=value * lr,
            tolerance=_off * lr,
            says="At 90 % of the recorded steps that go downhill on the population loss the learning rate is below "
            "the critical one, so that the step lowered it: lr times the critical sharpness is at most 2. Whatever "
            "the optimizer; it depends on no norm.",
            caveat="Steps that go uphill at once have no critical rate and are missing here, so that HOLDS does not "
            "say that the loss falls at 90 % of all steps. Above 2 the step was too long by the loss of that point "
            "alone; training need not suffer.",
        ),
    ),
    caveats=(
        "On a quadratic uᵀHu / ⟨u, −∇F⟩: the curvature along the step, seen from the slope. About six evaluations of "
        "the loss, and no gradient.",
        "The bracket of r_c is narrowed to a sixteenth; the tolerance is half its width.",
    ),
)
