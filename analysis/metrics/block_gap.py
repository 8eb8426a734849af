"""First-order convexity of each tensor by itself: one tensor makes its part of the step, the others stand still."""

from analysis.columns import Units
from analysis.columns_of_replays import block_gap, block_loss
from analysis.metric import Claim, Metric
from analysis.rounding import loss_errors, slope_rounding
from analysis.series import exponential_mean, running_mean

metric = Metric(
    name="block_gap",
    family="A",
    catalogue=("A9",),
    title="Convexity gap of each tensor moved alone",
    paper="After Tran, Zhang, Cutkosky (2024), arXiv:2407.01825, section 3.1, tensor by tensor",
    formula="f(x') − f(x_{t−1}) − ⟨∇f(x'), x' − x_{t−1}⟩, x' the point x_{t−1} with one tensor at its place in x_t; of "
    "the model the largest over the tensors",
    units=Units(loss=1),
    value=block_gap,  # ≤ 0 wherever the loss is convex in that tensor
    blocks="alone",
    tolerance=loss_errors(block_loss) + slope_rounding,
    series=(running_mean(), exponential_mean(0.99)),
    claims=(
        Claim(
            name="every tensor at every step",
            at_most=0,
            null_value=0.0,
            says="Every minibatch loss is convex in each tensor by itself along that tensor's part of the step: the "
            "largest gap of all tensors is at most 0 at every recorded step, each minibatch by itself. It depends on "
            "no norm.",
            caveat="Convexity in every tensor by itself does not make a loss convex (the product of two numbers); a "
            "violation refutes both, for that one minibatch.",
        ),
        Claim(
            name="each tensor on average",
            at_most=0,
            over="on average",
            null_value=0.0,
            says="The gap is at most 0 on average over the recorded steps: of the whole model the largest gap of each "
            "step, of a tensor its own, with the number of tensors taken into account. Fresh minibatches, so that of "
            "a tensor it is about the population loss; it depends on no norm.",
            caveat="The mean of the largest of many gaps is pushed up by noise between minibatches, so that FAILS for "
            "the model does not refute convexity of the population loss in every tensor; the tensors' own verdicts "
            "answer that.",
        ),
    ),
    caveats=(
        "Not a share of the model's convexity gap: moved together, the tensors also change one another's slopes. The "
        "exact additive shares are those of path_allocation.",
        "A loss that is linear in a tensor has 0 there.",
    ),
)
