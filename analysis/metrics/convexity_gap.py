"""First-order convexity along each step."""

import polars as pl

from analysis.columns import Units, clip_factor, coupled_decay, d_d, dg_d, gx_d, loss_x, loss_y
from analysis.decay import regularized
from analysis.metric import Claim, Metric, Variant
from analysis.rounding import loss_difference_rounding, resolved
from analysis.series import cumulative, exponential_mean, running_mean, zero_start_mean

_gap = loss_x - loss_y - gx_d
_resolved, _rounding = resolved(_gap, -dg_d / 2, loss_difference_rounding)
_stands_in = (
    "Where −⟨∇f(x) − ∇f(y), x − y⟩/2 is below the rounding of the loss difference it stands in for the gap. The gap "
    "depends on no norm."
)

metric = Metric(
    name="convexity_gap",
    family="A",
    catalogue=("A1", "A2", "A5"),
    title="Convexity gap of each step",
    paper="After Tran, Zhang, Cutkosky (2024), arXiv:2407.01825, section 3.1, with y = the previous point",
    formula="f(x) − f(y) − ⟨∇f(x), x − y⟩",
    units=Units(loss=1),
    value=_gap,  # ≤ 0 wherever the loss is convex
    pairings=("previous", "next"),
    blocks="no",
    tolerance=loss_difference_rounding,
    series=(
        running_mean(),
        exponential_mean(0.99),
        exponential_mean(0.9999, "long_exponential_mean", role="beside"),
        zero_start_mean(),
        cumulative(),
    ),
    variants=(
        Variant(
            "clipped",
            "with the gradient after clipping, as the 2024 script logged its slope",
            pl.when(pl.col("pairing").cast(pl.String) != "next").then(loss_x - loss_y - clip_factor * gx_d),
        ),
        regularized(_gap - coupled_decay / 2 * d_d),
    ),
    claims=(
        Claim(
            name="convex at every step",
            at_most=0,
            quantity=_resolved,
            tolerance=_rounding,
            null_value=0.0,
            says="Every minibatch loss f(·, z_t) is convex along the step from y to x: the gap is at most 0 at every "
            "recorded step, each minibatch by itself. " + _stands_in,
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
            population=True,
            says="The population loss is convex along the path: the mean gap over the recorded steps is at most 0. "
            "Fresh minibatches make each gap an unbiased draw of the population's. " + _stands_in,
            caveat="A linear or zero loss has gap 0. A mean at most 0 is compatible with single steps of either sign "
            "and says nothing about points off the path or about the way to a minimiser.",
        ),
        Claim(
            name="mostly convex",
            at_most=0.5,
            over="share",
            quantity=_resolved,
            tolerance=_rounding,
            null_value=0.0,
            says="At most half of the recorded steps show a minibatch loss that is not convex on the step: a gap above "
            "0 by more than its rounding, each minibatch by itself. " + _stands_in,
            caveat="One half is a convention; convexity of every minibatch loss predicts a share of 0, and so does a "
            "linear loss. A share says nothing of sizes: rare large gaps may outweigh the rest, see violation_mass. It "
            "does not refute convexity of the population loss.",
        ),
    ),
    caveats=(
        "On a quadratic the gap is −dᵀHd/2.",
        "Unbiased for the population only on fresh minibatches (pairing previous); not on the minibatch that made the "
        "step (next), where curvature that varies between minibatches makes it larger in size.",
    ),
)
