"""Is the optimisation curve of the whole data convex: does F fall ever more slowly?"""

import polars as pl

from analysis.columns import Units
from analysis.columns_of_replays import full_after, full_before, full_loss
from analysis.full_batch import plain_descent
from analysis.metric import Claim, Metric
from analysis.rounding import loss_errors
from analysis.series import exponential_mean, running_mean

_second = full_after - 2 * full_loss + full_before

metric = Metric(
    name="full_curve_convexity",
    family="A",
    catalogue=("A11",),
    title="Second difference of the loss of the whole data along the path",
    paper="Barzilai, Shamir, Zamani (2025), arXiv:2503.10138: on convex L-smooth losses the curve of gradient descent "
    "is convex for lr ≤ 1.75/L, and on quadratics for lr ≤ 2/L",
    formula="F(x_{t+n}) − 2 F(x_t) + F(x_{t−n}), the whole data replayed at every n-th step",
    units=Units(loss=1),
    value=_second,
    blocks="no",
    tolerance=loss_errors(full_after.abs() + 2 * full_loss.abs() + full_before.abs(), squares=6),
    series=(running_mean(), exponential_mean(0.99)),
    claims=(
        Claim(
            name="a convex curve",
            at_least=0,
            over="on average",
            null_value=0.0,
            says="The loss of the whole data falls ever more slowly: its second difference over the recorded steps is "
            "at least 0 on average. Population loss; it depends on no norm.",
            caveat="Only gradient descent on the whole data is promised a convex curve; with minibatches, momentum or "
            "a changing rate a negative mean does not refute convexity of the loss. The mean is what the slope at "
            "the start has over the slope at the end.",
        ),
        Claim(
            name="a convex curve under gradient descent",
            at_least=0,
            quantity=pl.when(plain_descent).then(_second),
            null_value=0.0,
            optimizers=("SGD",),
            optimizers_why="it is a theorem about gradient descent",
            says="Where a step was plain gradient descent on the whole data, the curve of F is convex at every "
            "recorded step: the second difference is at least 0. Population loss: the minibatch was the whole data, "
            "as its loss and its gradient's norm show; Euclidean norm.",
            caveat="A violation refutes convex, L-smooth and lr ≤ 1.75/L all at once, not any one of them. Whether the "
            "step after next was of the same kind is not checked.",
        ),
    ),
    caveats=(
        "Every n-th value of a convex sequence is a convex sequence, so that n does not change the claim.",
        "A linear loss under constant steps has 0.",
    ),
)
