"""Upper error bound: how large the gradient is against the distance to a reference point."""

import polars as pl

from analysis.columns import Units, coupled_decay, d_d, g_x, ga_gb, gx_gx, lr, u_vector, value, x_x
from analysis.decay import regularized
from analysis.metric import Bias, Caution, Claim, Metric, Variant
from analysis.rounding import GRADIENT_ERRORS
from analysis.series import exponential_mean, running_max, running_mean

_squared = pl.coalesce(ga_gb, gx_gx)  # the halves' product is unbiased for ‖∇F‖²; its root would not be
_rounding = 2 * GRADIENT_ERRORS * u_vector * gx_gx / d_d

metric = Metric(
    name="error_bound",
    family="B",
    catalogue=("B4",),
    title="Squared error-bound constant of each step",
    paper="Guille-Escuret et al. (2024), arXiv:2306.11922: EB, the upper error bound ‖∇F(x)‖ ≤ L‖x − x_r‖, here "
    "squared",
    formula="⟨g_a, g_b⟩ / ‖x − x_r‖², g_a and g_b of the two halves of z_t; ‖g‖² where there are no halves",
    units=Units(loss=2, distance=-4),
    value=_squared / d_d,  # ≤ L²
    pairings=("reference",),
    blocks="trajectory",
    ratio=(_squared, d_d),
    tolerance=_rounding,
    series=(running_mean(), exponential_mean(0.99), running_max()),
    variants=(
        Variant(
            "minibatch", "with the minibatch's own gradient, ‖g‖² / ‖x − x_r‖²: inflated by its noise", gx_gx / d_d
        ),
        regularized((_squared + 2 * coupled_decay * g_x + coupled_decay**2 * x_x) / d_d),
    ),
    claims=(
        Claim(
            name="below 2/lr on average",
            at_most=4,
            over="on average",
            quantity=value * lr**2,
            tolerance=_rounding * lr**2,
            null_value=0.0,
            population=True,
            optimizers=("SGD",),
            optimizers_why="the learning rate is a Euclidean step length per gradient only in gradient descent",
            biases=(
                Bias(
                    "minibatch noise",
                    "Without half batches ‖g‖² stands for ‖∇F‖² and is larger by tr Σ; with them this is 0.",
                    pl.when(ga_gb.is_not_null()).then(0.0).mean(),
                ),
            ),
            says="The gradient of the population loss stays below 2/lr times the distance to the reference point, as "
            "it does around a minimiser of an L-smooth loss with lr ≤ 2/L: the mean of (lr‖∇F(x_t)‖/‖x_t − x_r‖)² over "
            "the recorded steps is at most 4. Whole model, Euclidean norm.",
            caveat="The reference's own gradient is not 0: near a reference that is no minimiser the value grows "
            "without bound, which does not refute smoothness.",
            cautions=(Caution("momentum", 0, "With momentum b the step is not lr·g and 2/lr is no limit."),),
        ),
        Claim(
            name="does not keep growing",
            at_most=0,
            over="trend",
            population=True,
            says="The squared error-bound constant of the population loss towards the reference point is, on average "
            "over the second half of the run, not above that over the first half. Whole model, Euclidean norm.",
            caveat="Growth towards the end is what any reference with a gradient of its own gives as x_t nears it, and "
            "what minibatch noise gives without half batches; it does not refute an upper error bound with a larger "
            "constant.",
        ),
    ),
    caveats=("On quadratics around the minimiser it is eᵀH²e/eᵀe, the square of a number in [μ, L].",),
)
