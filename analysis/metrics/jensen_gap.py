"""Jensen's inequality on windows of the path: the loss at the mean point against the mean of the losses."""

from analysis.columns import Units
from analysis.columns_of_replays import jensen_full, jensen_loss, jensen_minibatch
from analysis.metric import Claim, Metric, Variant
from analysis.rounding import loss_errors
from analysis.series import exponential_mean, running_mean

metric = Metric(
    name="jensen_gap",
    family="B",
    catalogue=("B11",),
    title="Jensen gap of windows of the path",
    paper="Jensen's inequality; averages of iterates in analyses of convex stochastic optimisation",
    formula="F(x̄) − mean_s F(x_s), x̄ = mean_s x_s, over windows of the path",
    units=Units(loss=1),
    value=jensen_full,  # ≤ 0 wherever F is convex
    blocks="no",
    tolerance=loss_errors(2 * jensen_loss),
    series=(running_mean(), exponential_mean(0.99)),
    variants=(Variant("on_minibatches", "on the window's own minibatches, f(x_s, z_s)", jensen_minibatch),),
    claims=(
        Claim(
            name="the mean point is better on average",
            at_most=0,
            over="on average",
            null_value=0.0,
            says="The loss of the whole data at the mean of a window's points is at most the mean of its values at "
            "them, as of every convex loss: on average over the windows of recorded steps. Population loss; it depends "
            "on no norm.",
            caveat="One positive value beyond rounding refutes convexity of F on the convex hull of that window's "
            "points. A negative mean does not prove it: the mean point of a valley with a flat floor is low whatever "
            "its walls.",
        ),
        Claim(
            name="better on the window's minibatches",
            at_most=0,
            over="on average",
            quantity=jensen_minibatch,
            null_value=0.0,
            says="On the minibatches of a window the mean point is on average at most as high as the recorded steps "
            "were: mean f(x̄, z_s) ≤ mean f(x_s, z_s). Each x_s is fresh for its minibatch; it depends on no norm.",
            caveat="The mean point has seen these minibatches through the steps they made, which lowers its loss on "
            "them: HOLDS may be that alone and does not support convexity. The value on the whole data has no such "
            "bias.",
        ),
    ),
    caveats=(
        "On a quadratic it is −½ mean_s (x_s − x̄)ᵀH(x_s − x̄). A linear loss has 0.",
        "A window stands at its last step. On the whole data, up to eight of its points are taken.",
        "With BatchNorm in train mode the statistics are those of the batches at the mean point.",
    ),
)
