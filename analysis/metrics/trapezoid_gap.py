"""Convexity along each step from the gradients alone."""

from analysis.columns import Units, d_d, dg_d
from analysis.metric import Claim, Metric
from analysis.rounding import gradient_difference_rounding
from analysis.series import cumulative, exponential_mean, running_mean

metric = Metric(
    name="trapezoid_gap",
    family="A",
    catalogue=("A4",),
    title="Trapezoid gap of each step",
    paper="Monotonicity of the gradient; the trapezoid rule for the loss difference in the convexity gap",
    formula="−⟨∇f(x) − ∇f(y), x − y⟩ / 2",
    units=Units(loss=1),
    value=-dg_d / 2,  # ≤ 0 wherever the loss is convex, and free of the cancellation of two losses
    pairings=("previous", "next"),
    blocks="share",
    tolerance=gradient_difference_rounding * d_d.sqrt() / 2,
    series=(running_mean(), exponential_mean(0.99), cumulative()),
    claims=(
        Claim(
            name="convex at every step",
            at_most=0,
            null_value=0.0,
            says="The gradient of every minibatch loss f(·, z_t) is monotone along the step: the trapezoid gap is at "
            "most 0 at every recorded step, each minibatch by itself. It depends on no norm.",
            caveat="One positive value refutes convexity of that one minibatch loss on that one step. It does not "
            "refute convexity of the population loss. A positive convexity gap may stand beside a negative trapezoid "
            "gap: a curve may bend down and back up within the step.",
        ),
        Claim(
            name="convex on average",
            at_most=0,
            over="on average",
            null_value=0.0,
            population=True,
            says="The population gradient is monotone along the path: the mean trapezoid gap over the recorded steps "
            "is at most 0. Fresh minibatches make each an unbiased draw. It depends on no norm.",
            caveat="A linear or zero loss has 0. A mean at most 0 is compatible with single steps of either sign and "
            "says nothing about points off the path.",
        ),
    ),
    caveats=(
        "Equal to the convexity gap on quadratics, and the mean of the convexity gap and minus the forward gap always.",
        "A block's value is its exact share of the model's, along a step in which all blocks move.",
    ),
)
