"""Critical sharpness of the minibatch that made the step."""

import polars as pl

from analysis.columns import Units, lr, value
from analysis.columns_of_replays import critical_minibatch
from analysis.metric import Claim, Metric
from analysis.series import exponential_mean, limit

_BELOW = "below 2/lr at 99 % of the steps"
_off = pl.col("critical_minibatch_off")

metric = Metric(
    name="minibatch_critical_sharpness",
    family="C",
    catalogue=("C11",),
    title="Critical sharpness of each minibatch",
    paper="Kalra et al. (2026), arXiv:2601.16979",
    formula="2 / r_c,  r_c = inf {r > 0 : f(x_t + r u, z_t) > f(x_t, z_t)},  u = (x_{t+1} − x_t) / lr",
    units=Units(loss=1, distance=-2),
    value=critical_minibatch,
    blocks="no",
    tolerance=_off,
    series=(exponential_mean(0.99), limit("two_over_lr", "2 / lr", 2 / lr, claim=_BELOW)),
    claims=(
        Claim(
            name=_BELOW,
            at_most=2,
            over="quantile",
            at_quantile=0.99,
            quantity=value * lr,
            tolerance=_off * lr,
            says="At 99 % of the recorded steps that go downhill on their minibatch the learning rate is below the "
            "critical one: the minibatch that made the step has a lower loss after it, lr times the critical "
            "sharpness is at most 2. In sample, each minibatch by itself, whatever the optimizer; it depends on no "
            "norm.",
            caveat="It is about the minibatch that made the step and does not say anything of the population loss.",
        ),
    ),
    caveats=(
        "On a quadratic uᵀHu / ⟨u, −g⟩; for gradient descent gᵀHg/‖g‖².",
        "Steps along which this loss never rises, or rises at once (momentum can do that), have none and are missing.",
    ),
)
