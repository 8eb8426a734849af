"""The convexity gap of each step in double precision, where the recorded losses are too coarse for it."""

from analysis.columns import Units, gx_d, loss_x, loss_y
from analysis.columns_of_replays import double_change, double_loss, double_room, double_slope
from analysis.metric import Claim, Metric, Variant
from analysis.rounding import GRADIENT_ERRORS, LOSS_ERRORS, ROUNDOFF
from analysis.series import cumulative, exponential_mean, running_mean

_rounding = ROUNDOFF["float64"] * (LOSS_ERRORS * double_loss + GRADIENT_ERRORS * double_room)
_evaluated = "Loss and gradient are evaluated again in double precision, at the recorded points. It depends on no norm."

metric = Metric(
    name="convexity_gap_float64",
    family="A",
    catalogue=("A1",),
    title="Convexity gap of each step in double precision",
    paper="After Tran, Zhang, Cutkosky (2024), arXiv:2407.01825, section 3.1, with y = the previous point",
    formula="f(x) − f(y) − ⟨∇f(x), x − y⟩, all of it in double precision",
    units=Units(loss=1),
    value=double_change - double_slope,  # ≤ 0 wherever the loss is convex
    blocks="no",
    tolerance=_rounding,
    series=(running_mean(), exponential_mean(0.99), cumulative()),
    variants=(Variant("recorded", "from the losses and gradients as they were recorded", loss_x - loss_y - gx_d),),
    claims=(
        Claim(
            name="convex at every step",
            at_most=0,
            null_value=0.0,
            says="Every minibatch loss f(·, z_t) is convex along the step from y to x: the gap is at most 0 at every "
            f"recorded step, each minibatch by itself. {_evaluated}",
            caveat="One positive gap refutes convexity of that one minibatch loss on that one step. It does not refute "
            "convexity of the population loss, and no violation says nothing about points off the path.",
        ),
        Claim(
            name="convex on average",
            at_most=0,
            over="on average",
            null_value=0.0,
            population=True,
            says="The population loss is convex along the path: the mean gap over the recorded steps is at most 0. "
            f"Fresh minibatches make each gap an unbiased draw of the population's. {_evaluated}",
            caveat="A linear or zero loss has gap 0. A mean at most 0 is compatible with single steps of either sign "
            "and says nothing about points off the path or about the way to a minimiser.",
        ),
    ),
    caveats=(
        "The loss that training saw was the recorded one, with its rounding; this is the function it stands for.",
        "Parameters stay where they were recorded, so that d is exact.",
    ),
)
