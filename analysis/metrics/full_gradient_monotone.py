"""Does the gradient of the whole data become shorter along the path?"""

import polars as pl

from analysis.columns import Units, u_vector
from analysis.columns_of_replays import full_gg, full_gg_before
from analysis.full_batch import plain_descent
from analysis.metric import Claim, Metric
from analysis.rounding import GRADIENT_ERRORS
from analysis.series import cumulative, exponential_mean, running_mean

_change = full_gg - full_gg_before

metric = Metric(
    name="full_gradient_monotone",
    family="A",
    catalogue=("A12",),
    title="Change of the squared gradient norm of the whole data along the path",
    paper="Gradient descent with lr ≤ 2/L on a convex L-smooth loss never lengthens the gradient: ∇F is 1/L-cocoercive",
    formula="‖∇F(x_t)‖² − ‖∇F(x_{t−n})‖², the whole data replayed at every n-th step",
    units=Units(loss=2, distance=-2),
    value=_change,
    blocks="no",
    tolerance=2 * GRADIENT_ERRORS * u_vector * (full_gg + full_gg_before),
    series=(running_mean(), exponential_mean(0.99), cumulative()),
    claims=(
        Claim(
            name="shorter under gradient descent",
            at_most=0,
            quantity=pl.when(plain_descent).then(_change),
            null_value=0.0,
            optimizers=("SGD",),
            optimizers_why="it is a theorem about gradient descent",
            says="Where steps were plain gradient descent on the whole data, ‖∇F‖ does not grow: at every recorded "
            "step that was replayed it is at most what it was at the one before. Population loss, Euclidean norm.",
            caveat="A violation refutes convex, L-smooth and lr ≤ 2/L all at once, not any one of them: progressive "
            "sharpening lengthens gradients of losses that fall at every step.",
        ),
        Claim(
            name="shorter on average",
            at_most=0,
            over="on average",
            null_value=0.0,
            says="The gradient of the whole data is shorter at the end than at the start: the mean change of ‖∇F‖² "
            "over the recorded steps is at most 0. Population loss, Euclidean norm.",
            caveat="The sum telescopes: it is about two points, the first and the last. No theorem promises it with "
            "minibatches; it does not refute convexity.",
        ),
    ),
    caveats=("On a quadratic with curvature h one step of gradient descent gives ‖∇F‖² (lr h − 2) lr h.",),
)
