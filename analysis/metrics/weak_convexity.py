"""Weak convexity: how much of a parabola must be added to make the loss convex along the step."""

from analysis.columns import Units, d_d, dg_d, gx_d, loss_x, loss_y, lr_d, value
from analysis.metric import Caution, Claim, Metric
from analysis.rounding import loss_difference_rounding, resolved
from analysis.series import Series, exponential_mean, running_max

_resolved, _rounding = resolved(loss_x - loss_y - gx_d, -dg_d / 2, loss_difference_rounding)
_MILD = "mild against 1/lr"

metric = Metric(
    name="weak_convexity",
    family="A",
    catalogue=("A6",),
    title="Weak-convexity modulus needed by each step",
    paper="f is ρ-weakly convex if f + ρ‖·‖²/2 is convex; every step then has 2·gap/‖x − y‖² ≤ ρ",
    formula="2 (f(x) − f(y) − ⟨∇f(x), x − y⟩) / ‖x − y‖²",
    units=Units(loss=1, distance=-2),
    value=2 * _resolved / d_d,  # ≤ ρ; ≤ 0 where convex
    pairings=("previous", "next"),
    blocks="no",
    ratio=(2 * _resolved, d_d),
    tolerance=2 * _rounding / d_d,
    series=(running_max(), exponential_mean(0.99), Series("one_over_lr", "1 / lr", 1 / lr_d, "limit", claim=_MILD)),
    claims=(
        Claim(
            name=_MILD,
            at_most=1,
            over="quantile",
            at_quantile=0.99,
            quantity=value * lr_d,
            tolerance=2 * _rounding / d_d * lr_d,
            null_value=0.0,
            optimizers=("SGD",),
            optimizers_why="the learning rate is a Euclidean step length per gradient only in gradient descent",
            says="Minibatch losses f(·, z_t) are weakly convex with a modulus below 1/lr along 99 % of the recorded "
            "steps: the 99 % quantile of the modulus a step needs, times the learning rate of that step, is at most 1. "
            "Whole model, Euclidean norm. Gaps below the rounding of the loss difference are taken from the gradients.",
            caveat="Weak convexity holds with some modulus wherever f has bounded curvature on a bounded set, so only "
            "the size against 1/lr informs: below it, lr steps behave as on a convex loss plus noise. It does not "
            "bound curvature across the path, nor refute convexity of the population loss.",
            cautions=(
                Caution("momentum", 0, "With momentum b the effective rate is lr/(1 − b)."),
                Caution("random_scale", 1, "Randomly scaled steps: the effective rate is lr times the random factor."),
            ),
        ),
        Claim(
            name="does not keep growing",
            at_most=0,
            over="trend",
            null_value=0.0,
            says="The modulus of weak convexity that minibatch losses need along the steps is, on average over the "
            "second half of the run, not above that over the first half. Whole model, Euclidean norm.",
            caveat="Growth refutes one modulus that is tight all along the path, not weak convexity with a larger one. "
            "Values below 0 (convex steps) enter the mean as they are.",
        ),
    ),
    caveats=(
        "On a quadratic it is −dᵀHd/dᵀd, minus the directional curvature; on |x² − 1| inside (−1, 1) exactly 2.",
        "A lower bound for the modulus: other points of the same step, and other directions, may need more.",
    ),
)
