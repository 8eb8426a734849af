"""The loss along each step, against its chord."""

from analysis.columns import Units, gx_gx, u_vector, x_x
from analysis.columns_of_replays import largest_defect, midpoint_defect, profile_loss
from analysis.metric import Claim, Metric, Variant
from analysis.rounding import loss_errors
from analysis.series import cumulative, exponential_mean, running_mean

# points between two recorded ones are rounded to the parameters' precision before the loss is asked there
_rounding = loss_errors(profile_loss) + u_vector * (gx_gx * x_x).sqrt()

metric = Metric(
    name="midpoint_defect",
    family="A",
    catalogue=("A8",),
    title="Midpoint defect of the loss along each step",
    paper="The definition of convexity, on the segment of each step; readers of Tran, Zhang, Cutkosky (2024) asked for "
    "the loss along steps",
    formula="φ(½) − (φ(0) + φ(1))/2,  φ(s) = f(x_{t−1} + s (x_t − x_{t−1}), z_t)",
    units=Units(loss=1),
    value=midpoint_defect,  # ≤ 0 wherever the loss is convex on the step
    blocks="no",
    tolerance=_rounding,
    series=(running_mean(), exponential_mean(0.99), cumulative()),
    variants=(Variant("largest_inside", "the largest at all points of the step that were asked", largest_defect),),
    claims=(
        Claim(
            name="below the chord at every step",
            at_most=0,
            null_value=0.0,
            says="Every minibatch loss lies at the middle of the step at most as high as the mean of its ends, as a "
            "loss does that is convex there: at every recorded step, each minibatch by itself. It depends on no norm.",
            caveat="One positive defect refutes convexity of that one minibatch loss on that one step, without any "
            "gradient. It does not refute convexity of the population loss; no violation says nothing about other "
            "points of the step, or off the path.",
        ),
        Claim(
            name="below the chord on average",
            at_most=0,
            over="on average",
            null_value=0.0,
            population=True,
            says="The population loss at the middle of a step is on average over the recorded steps at most the mean "
            "of its ends. Fresh minibatches: the step does not depend on z_t. It depends on no norm.",
            caveat="A linear or zero loss has 0. A mean at most 0 is compatible with single steps of either sign; it "
            "does not say anything about points off the path.",
        ),
        Claim(
            name="rarely above a chord anywhere",
            at_most=0.05,
            over="share",
            quantity=largest_defect,
            null_value=0.0,
            says="At most 5 % of the recorded steps show a minibatch loss above its chord somewhere: the largest of "
            "φ(s) − (1−s) φ(0) − s φ(1) over the points 0 < s < 1 that were asked is above 0 by more than its "
            "rounding. Each minibatch by itself; it depends on no norm.",
            caveat="5 % is a convention; convexity of every minibatch loss predicts 0. Between the points that were "
            "asked the loss may do anything, so that a small share does not prove convexity. Near the ends of a step "
            "defects are small and rounding hides them.",
        ),
    ),
    caveats=(
        "On a quadratic it is −dᵀHd/8, a quarter of the convexity gap.",
        "It needs no gradient, where the convexity gap compares losses with a slope: two measurements of one thing.",
    ),
)
