"""First-order convexity along each step."""

import polars as pl

from analysis.columns import Units, d_d, dg_d, gx_d, loss_x, loss_y
from analysis.metric import Claim, Metric
from analysis.rounding import gradient_difference_rounding, loss_difference_rounding
from analysis.series import cumulative, exponential_mean, running_mean

_gap = loss_x - loss_y - gx_d
_trapezoid = -dg_d / 2  # the same certificate of non-convexity without a loss difference, so without its cancellation
_fine = _gap.is_finite() & (_trapezoid.abs() < loss_difference_rounding)
_resolved = pl.when(_fine).then(_trapezoid).otherwise(_gap)
_rounding = pl.when(_fine).then(gradient_difference_rounding * d_d.sqrt()).otherwise(loss_difference_rounding)

metric = Metric(
    name="convexity_gap",
    title="Convexity gap of each step",
    paper="After Tran, Zhang, Cutkosky (2024), arXiv:2407.01825, section 3.1, with y = the previous point",
    formula="f(x) − f(y) − ⟨∇f(x), x − y⟩",
    units=Units(loss=1),
    value=_gap,  # ≤ 0 wherever the loss is convex
    tolerance=loss_difference_rounding,
    series=(running_mean(), exponential_mean(0.99), cumulative()),
    claims=(
        Claim(
            name="convex at every step",
            at_most=0,
            quantity=_resolved,
            tolerance=_rounding,
            null_value=0.0,
            says="Every minibatch loss f(·, z_t) is convex along the step from x_{t−1} to x_t: the gap is at most 0 at "
            "every recorded step, each minibatch by itself. Where −⟨∇f(x) − ∇f(y), x − y⟩/2 is below the rounding of "
            "the loss difference it stands in for the gap. The gap depends on no norm.",
            caveat="One positive gap refutes convexity of that one minibatch loss on that one step. It does not refute "
            "convexity of the population loss, and no violation says nothing about points off the path.",
        ),
        Claim(
            name="convex on average",
            at_most=0,
            over="on average",
            quantity=_resolved,
            tolerance=_rounding,
            null_value=0.0,
            says="The population loss is convex along the path: the mean gap over the recorded steps is at most 0. "
            "Fresh minibatches make each gap an unbiased draw of the population's. Where the gap is below the rounding "
            "of the loss difference −⟨∇f(x) − ∇f(y), x − y⟩/2 stands in for it. The gap depends on no norm.",
            caveat="A linear or zero loss has gap 0. A mean at most 0 is compatible with single steps of either sign "
            "and says nothing about points off the path or about the way to a minimiser.",
        ),
    ),
    caveats=(
        "On a quadratic the gap is −dᵀHd/2.",
        "Unbiased for the population only on fresh minibatches; not on the minibatch that made the step.",
    ),
)
