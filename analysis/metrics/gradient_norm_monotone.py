"""Does one gradient step shorten the gradient of the very minibatch it was made with?"""

import polars as pl

from analysis.columns import Units, gx_gx, gy_gy, u_vector
from analysis.metric import Claim, Metric
from analysis.rounding import GRADIENT_ERRORS
from analysis.series import cumulative, exponential_mean, running_mean

_change = gx_gx - gy_gy
_plain = (pl.col("momentum") == 0) & (pl.col("weight_decay") == 0)

metric = Metric(
    name="gradient_norm_monotone",
    family="A",
    catalogue=("A12",),
    title="Change of the squared gradient norm over each step, on one minibatch",
    paper="Gradient descent with lr ≤ 2/L on a convex L-smooth loss never lengthens the gradient: ∇f is 1/L-cocoercive",
    formula="‖∇f(x)‖² − ‖∇f(y)‖²",
    units=Units(loss=2, distance=-2),
    value=_change,
    pairings=("previous", "next"),
    blocks="share",
    tolerance=2 * GRADIENT_ERRORS * u_vector * (gx_gx + gy_gy),
    series=(running_mean(), exponential_mean(0.99), cumulative()),
    claims=(
        Claim(
            name="shortened by its own step",
            at_most=0,
            quantity=pl.when(_plain).then(_change),
            pairings=("next",),
            null_value=0.0,
            optimizers=("SGD",),
            optimizers_why="it is stated for a step along the negative gradient",
            says="A step of plain gradient descent on the minibatch loss f(·, z_t) shortens its gradient, as on every "
            "convex L-smooth loss with lr ≤ 2/L: ‖∇f(x_{t+1}, z_t)‖ ≤ ‖∇f(x_t, z_t)‖ at every recorded step. In "
            "sample, whole model, Euclidean norm. Steps with momentum or weight decay are left out; clipping shortens "
            "steps and is allowed.",
            caveat="A violation refutes that f(·, z_t) is convex and L-smooth with lr ≤ 2/L all at once, not any one "
            "of them. No violation refutes nothing about the population: its gradient norm is gradient_norm_squared.",
        ),
    ),
    caveats=(
        "A linear loss has 0. On fresh minibatches (pairing previous) the step was made by another gradient, and no "
        "sign is claimed.",
        "On a quadratic with curvature h one step of gradient descent gives ‖g‖² (lr h − 2) lr h.",
    ),
)
