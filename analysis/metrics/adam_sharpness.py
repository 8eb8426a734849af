"""Sharpness in Adam's own metric, against its limit of stability."""

import polars as pl

from analysis.columns import Units, lr, value
from analysis.columns_of_replays import adam_sharpness_full, adam_sharpness_minibatch
from analysis.metric import Claim, Metric, Variant
from analysis.series import exponential_mean, limit, running_max
from analysis.thresholds import adam_limit

_BELOW = "below the limit of stability on average"
_off = pl.col("adam_sharpness_full_off")

metric = Metric(
    name="adam_sharpness",
    family="C",
    catalogue=("C10",),
    title="Sharpness on the whole data in Adam's metric",
    paper="Cohen et al. (2022), arXiv:2207.14484: adaptive gradient methods at the edge of stability",
    formula="λ_max(D^-½ ∇²F(x_t) D^-½), D = √v̂ + ε of the step that leaves x_t",
    units=Units(distance=-1),
    value=adam_sharpness_full,
    blocks="no",
    tolerance=_off,
    series=(
        running_max(),
        exponential_mean(0.99),
        limit("stability_limit", "limit of stability 2(1+β₁)/((1−β₁) lr)", adam_limit / lr, claim=_BELOW),
    ),
    variants=(Variant("of_minibatches", "of each minibatch's own Hessian", adam_sharpness_minibatch),),
    claims=(
        Claim(
            name=_BELOW,
            at_most=1,
            over="on average",
            quantity=value * lr / adam_limit,
            tolerance=_off * lr / adam_limit,
            optimizers=("Adam", "AdamW"),
            optimizers_why="the limit is that of Adam with its D frozen",
            says="The preconditioned sharpness of the population loss is on average over the recorded steps at most "
            "2(1+β₁)/((1−β₁) lr), 38/lr at β₁ = 0.9: what Adam with a frozen D can stand in. Whole model, the norm "
            "‖d‖² = Σ D_i d_i².",
            caveat="Full-batch Adam is found to hover at the limit while the loss falls: FAILS does not refute "
            "convergence. With minibatches noise keeps the sharpness below.",
        ),
    ),
    caveats=("D moves from step to step; the limit is exact for a frozen D, quadratics and the whole data.",),
)
