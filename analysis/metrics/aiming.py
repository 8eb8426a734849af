"""Aiming: how much of the loss itself the slope towards a reference point accounts for."""

from analysis.columns import Units, gx_d, loss_x
from analysis.metric import Claim, Metric
from analysis.rounding import loss_errors, slope_rounding
from analysis.series import exponential_mean, running_mean

_theta = (gx_d + 0 * loss_x) / loss_x  # an infinite loss gives no ratio

metric = Metric(
    name="aiming",
    family="B",
    catalogue=("B6",),
    title="Aiming constant of each step",
    paper="Aiming condition, Islamov et al. (2024), arXiv:2410.12455, table 1: ⟨∇f(x), x − proj(x, S)⟩ ≥ θ f(x)",
    formula="⟨∇f(x), x − x_r⟩ / f(x)",
    units=Units(),
    value=_theta,  # ≥ θ > 0
    pairings=("reference",),
    blocks="no",
    ratio=(gx_d, loss_x),
    tolerance=(slope_rounding + loss_errors(loss_x.abs(), squares=1) * _theta.abs()) / loss_x.abs(),
    series=(running_mean(), exponential_mean(0.99)),
    claims=(
        Claim(
            name="aims at 95 % of the steps",
            at_least=0,
            over="quantile",
            at_quantile=0.05,
            null_value=0.0,
            says="The minibatch gradients aim at the reference point with some constant θ ≥ 0 at 95 % of the recorded "
            "steps: the 5 % quantile of the constant is at least 0. It depends on no norm.",
            caveat="Stated for losses at least 0 that a solution set brings to 0 (interpolation), with the reference "
            "for the nearest solution: away from interpolation a negative value does not refute convexity. Minibatch "
            "noise scatters the values; a reference made of the run shifts them up (R3, R4).",
        ),
        Claim(
            name="aims on the whole",
            at_least=0,
            over="ratio",
            numerator=gx_d,
            denominator=loss_x,
            says="The summed slopes towards the reference point are a share θ ≥ 0 of the summed minibatch losses over "
            "all recorded steps. It depends on no norm.",
            caveat="For the last point of plain SGD the numerator is positive whatever the gradients (R4), which does "
            "not support any property of the loss; compare convexity_ratio.",
        ),
    ),
    caveats=(
        "Needs no loss at the reference: with f(x_r) = 0 it is the convexity ratio.",
        "There is no variant for f + λ‖x‖²/2: with the penalty only the point 0 can have a loss of 0, and "
        "strong_convexity, the strong form, asks for no smallest value.",
    ),
)
