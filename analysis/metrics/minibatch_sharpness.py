"""Sharpness of each minibatch's own loss."""

import polars as pl

from analysis.columns import Units, lr, value
from analysis.columns_of_replays import sharpness_minibatch
from analysis.metric import Claim, Metric
from analysis.series import exponential_mean, limit, running_max
from analysis.thresholds import sgd_limit

_BELOW = "below the limit of stability on average"
_off = pl.col("sharpness_minibatch_off")

metric = Metric(
    name="minibatch_sharpness",
    family="C",
    catalogue=("C10",),
    title="Sharpness of each minibatch",
    paper="Cohen et al. (2021), arXiv:2103.00065; on minibatches after Andreyev, Beneventano (2024), arXiv:2412.20553",
    formula="λ_max(∇²f(x_t, z_t))",
    units=Units(loss=1, distance=-2),
    value=sharpness_minibatch,
    blocks="no",
    tolerance=_off,
    series=(
        running_max(),
        exponential_mean(0.99),
        limit("stability_limit", "limit of stability (2/lr without momentum)", sgd_limit / lr, claim=_BELOW),
    ),
    claims=(
        Claim(
            name=_BELOW,
            at_most=1,
            over="on average",
            quantity=value * lr / sgd_limit,
            tolerance=_off * lr / sgd_limit,
            optimizers=("SGD",),
            optimizers_why="the learning rate is a Euclidean step length per gradient only in gradient descent",
            says="The sharpness of the minibatch losses is on average over the recorded steps at most what gradient "
            "descent on one of them could stand in: 2/lr, with torch's momentum b 2(1+b)/lr. Each minibatch by "
            "itself, whole model, Euclidean norm.",
            caveat="The largest eigenvalue of a minibatch is above that of the population, the more so the smaller it "
            "is, and no step is made twice on one: above the limit training need not be unstable. It is not the "
            "curvature along the gradient, whose limit is 2/lr: that is edge_number, in-sample.",
        ),
    ),
    caveats=(
        "Lanczos approaches the eigenvalue from below; the tolerance is its residual.",
        "Biased up for the population: the largest eigenvalue of a mean is at most the mean of the largest.",
    ),
)
