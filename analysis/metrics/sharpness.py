"""Sharpness: the largest eigenvalue of the Hessian of the whole data's loss, against the limit of stability."""

import polars as pl

from analysis.columns import Units, lr, value
from analysis.columns_of_replays import sharpness_full, sharpness_minibatch
from analysis.metric import Caution, Claim, Metric, Variant
from analysis.series import exponential_mean, limit, running_max
from analysis.thresholds import sgd_limit

_BELOW = "below the limit of stability on average"
_off = pl.col("sharpness_full_off")

metric = Metric(
    name="sharpness",
    family="C",
    catalogue=("C10",),
    title="Sharpness on the whole data",
    paper="Cohen, Kaur, Li, Kolter, Talwalkar (2021), arXiv:2103.00065: full-batch gradient descent at the edge of "
    "stability; Tran, Zhang, Cutkosky (2024), section 4.1, compare it with the local smoothness",
    formula="λ_max(∇²F(x_t))",
    units=Units(loss=1, distance=-2),
    value=sharpness_full,
    blocks="no",
    tolerance=_off,
    series=(
        running_max(),
        exponential_mean(0.99),
        limit("stability_limit", "limit of stability (2/lr without momentum)", sgd_limit / lr, claim=_BELOW),
    ),
    variants=(Variant("of_minibatches", "λ_max of each minibatch's own Hessian", sharpness_minibatch),),
    claims=(
        Claim(
            name=_BELOW,
            at_most=1,
            over="on average",
            quantity=value * lr / sgd_limit,
            tolerance=_off * lr / sgd_limit,
            optimizers=("SGD",),
            optimizers_why="Adam stands at its limit in its own metric: see adam_sharpness",
            says="The sharpness of the population loss is on average over the recorded steps at most what gradient "
            "descent can stand in: 2/lr, with torch's momentum b 2(1+b)/lr, with Nesterov's 2(1+b)/((1+2b) lr). Whole "
            "model, Euclidean norm.",
            caveat="Analyses by the descent lemma assume it. Full-batch training is found to hover at the limit or "
            "just above it, and the loss falls all the same: FAILS does not refute convergence. With minibatches "
            "noise keeps the sharpness below, and HOLDS says nothing of the descent lemma.",
            cautions=(
                Caution("weight_decay", 0, "Weight decay adds to the curvature that the optimizer feels."),
                Caution("clip_factor", 1, "Clipping shortens steps: the limit is higher where they are clipped."),
            ),
        ),
        Claim(
            name="does not keep growing",
            at_most=0,
            over="trend",
            says="The mean sharpness of the population loss at the recorded steps of the second half of the run is "
            "not above that of the first half. Whole model, Euclidean norm.",
            caveat="Growth is progressive sharpening. It does not refute smoothness with a larger constant.",
        ),
    ),
    caveats=(
        "Lanczos approaches the eigenvalue from below; the tolerance is its residual.",
        "The limits are exact for quadratics and the whole data.",
    ),
)
