"""The local smoothness of a step over the sharpness at its end: is the one a stand-in for the other?"""

import polars as pl

from analysis.columns import Units, d_d, dg_dg
from analysis.columns_of_replays import sharpness_minibatch
from analysis.metric import Claim, Metric
from analysis.rounding import gradient_difference_rounding
from analysis.series import exponential_mean, running_mean

_smoothness = (dg_dg / d_d).sqrt()
_ratio = _smoothness / sharpness_minibatch
_off = pl.col("sharpness_minibatch_off")

metric = Metric(
    name="smoothness_to_sharpness",
    family="C",
    catalogue=("C3", "C10"),
    title="Local smoothness over sharpness, on one minibatch",
    paper="Tran, Zhang, Cutkosky (2024), arXiv:2407.01825, section 4.1: the local smoothness as a cheap proxy",
    formula="‖∇f(x) − ∇f(y)‖ / ‖x − y‖ / λ_max(∇²f(x, z_t))",
    units=Units(),
    value=_ratio,
    blocks="no",
    tolerance=gradient_difference_rounding / d_d.sqrt() / sharpness_minibatch.abs()
    + _ratio.abs() * _off / sharpness_minibatch.abs(),
    series=(running_mean(), exponential_mean(0.99)),
    claims=(
        Claim(
            name="a lower bound on average",
            at_most=1,
            over="on average",
            says="The local smoothness of a step is on average over the recorded steps at most the sharpness at its "
            "end, both on the same fresh minibatch, as on every quadratic without negative curvature larger than it. "
            "Whole model, Euclidean norm.",
            caveat="The local smoothness averages the Hessian over the step, so that a larger value does not refute "
            "anything: the step came from a sharper place, or crossed a kink, or negative curvature is the largest.",
        ),
    ),
    caveats=(
        "1 where steps point along the sharpest direction, and below it as far as they do not: how good a proxy the "
        "local smoothness is on this run. curvature_alignment asks the same without a Hessian.",
        "Both are biased up for the population, by noise between minibatches.",
    ),
)
