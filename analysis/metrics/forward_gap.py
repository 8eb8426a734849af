"""First-order convexity seen from the point a step starts at."""

from analysis.columns import Units, dg_d, gy_d, loss_x, loss_y
from analysis.metric import Claim, Metric
from analysis.rounding import forward_difference_rounding, resolved
from analysis.series import cumulative, exponential_mean, running_mean

_gap = loss_x - loss_y - gy_d
_resolved, _rounding = resolved(_gap, dg_d / 2, forward_difference_rounding)

metric = Metric(
    name="forward_gap",
    family="A",
    catalogue=("A3",),
    title="Forward convexity gap of each step",
    paper="The first-order condition of convexity at y instead of x; with L‖x − y‖²/2 it is the descent lemma",
    formula="f(x) − f(y) − ⟨∇f(y), x − y⟩",
    units=Units(loss=1),
    value=_gap,  # in [0, L‖d‖²/2] wherever the loss is convex and L-smooth
    pairings=("previous", "next"),
    blocks="no",
    tolerance=forward_difference_rounding,
    series=(running_mean(), exponential_mean(0.99), cumulative()),
    claims=(
        Claim(
            name="convex at every step",
            at_least=0,
            quantity=_resolved,
            tolerance=_rounding,
            null_value=0.0,
            says="Every minibatch loss f(·, z_t) lies above its tangent at the start of the step: the forward gap is "
            "at least 0 at every recorded step, each minibatch by itself. Where ⟨∇f(x) − ∇f(y), x − y⟩/2 is below the "
            "rounding of the loss difference it stands in for the gap. It depends on no norm.",
            caveat="One negative value refutes convexity of that one minibatch loss on that one step, whatever the "
            "convexity gap says there: neither implies the other. It does not refute convexity of the population loss.",
        ),
        Claim(
            name="convex on average",
            at_least=0,
            over="on average",
            quantity=_resolved,
            tolerance=_rounding,
            null_value=0.0,
            population=True,
            says="The population loss lies above its tangents at the starts of the steps on average: the mean forward "
            "gap over the recorded steps is at least 0. Fresh minibatches; the same stand-in for small gaps. It "
            "depends on no norm.",
            caveat="A linear or zero loss has 0. A mean at least 0 is compatible with single steps of either sign, and "
            "is no statement about smoothness: it only bounds it from below by twice the gap over ‖x − y‖².",
        ),
    ),
    caveats=(
        "On a quadratic the forward gap is +dᵀHd/2, and the convexity gap its negative.",
        "forward_gap − convexity_gap = ⟨∇f(x) − ∇f(y), x − y⟩, exactly.",
    ),
)
