"""Is the optimisation curve convex: do the losses fall ever more slowly?"""

import polars as pl

from analysis.columns import Units, lr, u_loss
from analysis.metric import Bias, Caution, Claim, Metric
from analysis.noise import minibatch_noise
from analysis.rounding import LOSS_ERRORS
from analysis.series import cumulative, exponential_mean, running_mean

_before, _here, _after = pl.col("loss_previous"), pl.col("loss"), pl.col("loss_next")

metric = Metric(
    name="curve_convexity",
    family="A",
    catalogue=("A11",),
    title="Second difference of the loss along the path, on one minibatch",
    paper="Barzilai, Shamir, Zamani (2025), arXiv:2503.10138: on convex L-smooth losses the curve of gradient descent "
    "is convex for lr ≤ 1.75/L, and on quadratics for lr ≤ 2/L",
    formula="f(x_{t+1}, z_t) − 2 f(x_t, z_t) + f(x_{t−1}, z_t)",
    units=Units(loss=1),
    value=_after - 2 * _here + _before,
    blocks="no",
    tolerance=LOSS_ERRORS * u_loss * (_after.abs() + 2 * _here.abs() + _before.abs()),
    series=(running_mean(), exponential_mean(0.99), cumulative()),
    claims=(
        Claim(
            name="curve convex at every step",
            at_least=0,
            null_value=0.0,
            optimizers=("SGD",),
            optimizers_why="it is stated for steps of gradient descent",
            says="Full-batch gradient descent on a convex L-smooth loss with lr ≤ 1.75/L has a convex curve of losses: "
            "the second difference, all three losses on one minibatch, is at least 0 at every recorded step. It "
            "depends on no norm.",
            caveat="It is a statement about runs whose minibatch is the whole data. With smaller ones the step ahead "
            "is in sample and the step behind is not: noise alone lowers the mean by lr tr Σ a step (R2), so a "
            "negative value does not refute convexity there.",
            cautions=(Caution("momentum", 0, "It is stated without momentum."),),
            biases=(
                Bias(
                    "R2",
                    "The minibatch made the step ahead but not the step behind: −lr tr Σ a step. Needs half batches.",
                    -(lr * minibatch_noise).mean(),
                ),
            ),
        ),
    ),
    caveats=("Needs both probes, look-back and look-ahead.", "A linear loss under constant steps has 0."),
)
