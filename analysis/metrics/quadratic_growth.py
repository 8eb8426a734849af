"""Quadratic growth of the loss around a reference point."""

from analysis.columns import Units, d_d, loss_x, loss_y
from analysis.decay import decay_rise, regularized
from analysis.metric import Claim, Metric
from analysis.rounding import loss_rounding
from analysis.series import exponential_mean, running_mean

metric = Metric(
    name="quadratic_growth",
    family="B",
    catalogue=("B9",),
    title="Quadratic-growth constant of each step",
    paper="Quadratic growth f(x) − f(x_r) ≥ μ‖x − x_r‖²/2; implied by strong convexity, PL and the secant inequality",
    formula="2 (f(x) − f(x_r)) / ‖x − x_r‖²",
    units=Units(loss=1, distance=-2),
    value=2 * (loss_x - loss_y) / d_d,  # ≥ μ
    pairings=("reference",),
    blocks="no",
    ratio=(2 * (loss_x - loss_y), d_d),
    tolerance=2 * loss_rounding / d_d,
    series=(running_mean(), exponential_mean(0.99)),
    variants=(regularized(2 * (loss_x - loss_y + decay_rise) / d_d),),
    claims=(
        Claim(
            name="grows on average",
            at_least=0,
            over="on average",
            null_value=0.0,
            population=True,
            says="The population loss lies above that of the reference point by some multiple μ ≥ 0 of the squared "
            "distance, on average over the recorded steps, both losses on one minibatch. Whole model, Euclidean norm.",
            caveat="It says that the reference is the better point, weighed by closeness, and nothing of the shape "
            "between: it does not imply convexity, and a negative mean does not refute it.",
        ),
        Claim(
            name="grows at 95 % of the steps",
            at_least=0,
            over="quantile",
            at_quantile=0.05,
            null_value=0.0,
            says="The minibatch losses f(·, z_t) lie above those of the reference point at 95 % of the recorded steps: "
            "the 5 % quantile of the growth constant is at least 0. Whole model, Euclidean norm.",
            caveat="Single minibatches may prefer any point; a negative quantile does not refute quadratic growth of "
            "the population loss.",
        ),
    ),
    caveats=("On quadratics around the minimiser it is eᵀHe/eᵀe. Needs the loss at the reference on z_t.",),
)
