"""Local smoothness in Adam's own metric: steps and gradients weighted by D = √v̂ + ε."""

import polars as pl

from analysis.columns import Units, dd_adam, dg_d, dg_dg, lr_d, qq_adam, value
from analysis.metric import Claim, Metric, Variant
from analysis.rounding import gradient_difference_rounding
from analysis.series import exponential_mean, running_max

_smoothness = (qq_adam / dd_adam).sqrt()
_rounding = (
    _smoothness * gradient_difference_rounding / dg_dg.sqrt()
)  # as large, relative to it, as in the Euclidean norm
_beta = pl.col("betas.0")
_scale = lr_d * (1 - _beta) / (1 + _beta)

metric = Metric(
    name="smoothness_adam",
    family="G",
    catalogue=("G1",),
    title="Local smoothness, Adam's metric",
    paper="Tran, Zhang, Cutkosky (2024), arXiv:2407.01825, eq. 4, in the norm of the preconditioner; the limit is that "
    "of Cohen et al. (2022), arXiv:2207.14484",
    formula="‖∇f(x) − ∇f(y)‖_{1/D} / ‖x − y‖_D, D = √v̂ + ε of the step",
    units=Units(distance=-1),
    value=_smoothness,
    tolerance=_rounding,
    series=(running_max(), exponential_mean(0.99)),
    variants=(Variant("curvature", "curvature in the same metric, ⟨∇f(x) − ∇f(y), d⟩ / ‖d‖_D²", dg_d / dd_adam),),
    claims=(
        Claim(
            name="below Adam's limit",
            at_most=2,
            over="quantile",
            at_quantile=0.99,
            quantity=value * _scale,
            tolerance=_rounding * _scale,
            optimizers=("Adam", "AdamW"),
            optimizers_why="the metric and the limit are those of Adam's preconditioned steps",
            says="At 99 % of the recorded steps the smoothness of the minibatch loss in the metric of the "
            "preconditioner is at most 2(1 + b)/((1 − b) lr), 38/lr for b = 0.9: where full-batch Adam with a frozen "
            "preconditioner is stable on quadratics. Each minibatch by itself, whole model, norm ‖d‖_D² = Σ D_i d_i².",
            caveat="The limit is one of full-batch training; noise of minibatches raises the value. The value is a "
            "lower bound for the preconditioned sharpness, so below the limit nothing is shown off the step; above it, "
            "instability is not shown either, for the preconditioner moves on.",
        ),
        Claim(
            name="does not keep growing",
            at_most=0,
            over="trend",
            optimizers=("Adam", "AdamW"),
            optimizers_why="the metric is that of Adam's preconditioned steps",
            says="The mean smoothness of the minibatch losses along the steps of the second half of the run is not "
            "above that of the first half. Whole model, norm ‖d‖_D² = Σ D_i d_i², D frozen at each step.",
            caveat="D falls with the gradient and the value rises with it: growth does not refute smoothness in a "
            "fixed norm, and no growth bounds nothing off the path.",
        ),
    ),
    caveats=(
        "At most max h_i/D_i on a diagonal quadratic. The curvature in this metric is at most the smoothness.",
        "Per block the value follows the whole trajectory: the other blocks move too.",
    ),
)
