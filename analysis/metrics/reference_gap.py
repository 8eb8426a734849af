"""First-order convexity towards a reference point."""

from analysis.columns import Units, coupled_decay, d_d, dg_d, gx_d, loss_x, loss_y
from analysis.decay import regularized
from analysis.metric import Claim, Metric
from analysis.rounding import loss_difference_rounding, resolved
from analysis.series import cumulative, exponential_mean, running_mean

_gap = loss_x - loss_y - gx_d
_resolved, _rounding = resolved(_gap, -dg_d / 2, loss_difference_rounding)

metric = Metric(
    name="reference_gap",
    family="B",
    catalogue=("B1",),
    title="Convexity gap towards a reference point",
    paper="After Tran, Zhang, Cutkosky (2024), arXiv:2407.01825, section 3.1, with y = a reference point",
    formula="f(x) − f(x_r) − ⟨∇f(x), x − x_r⟩",
    units=Units(loss=1),
    value=_gap,  # ≤ 0 wherever the loss is convex, or star-convex around x_r
    pairings=("reference",),
    blocks="no",
    tolerance=loss_difference_rounding,
    series=(running_mean(), exponential_mean(0.99), cumulative()),
    variants=(regularized(_gap - coupled_decay / 2 * d_d),),
    claims=(
        Claim(
            name="star-convex on average",
            at_most=0,
            over="on average",
            quantity=_resolved,
            tolerance=_rounding,
            null_value=0.0,
            population=True,
            says="The population loss is star-convex around the reference point, seen from the path: the mean gap over "
            "the recorded steps is at most 0, both losses on the same minibatch. It depends on no norm.",
            caveat="It is a statement about this reference point; a positive mean does not refute star-convexity "
            "around another. A convex loss has it around every point, so the negative controls (initial, random) must "
            "be read beside it. The noise that a reference made of the run carries (R3) enters slope and loss "
            "difference alike and leaves the gap to first order (R5).",
        ),
        Claim(
            name="star-convex at every step",
            at_most=0,
            quantity=_resolved,
            tolerance=_rounding,
            null_value=0.0,
            says="Every minibatch loss f(·, z_t) is star-convex around the reference point as seen from x_t: the gap "
            "is at most 0 at every recorded step, each minibatch by itself. It depends on no norm.",
            caveat="One positive gap refutes convexity of that one minibatch loss between x_t and the reference. It "
            "does not refute star-convexity of the population loss.",
        ),
    ),
    caveats=(
        "On a quadratic the gap is −(x − x_r)ᵀH(x − x_r)/2, whatever the reference point.",
        "The loss at the reference must be evaluated on z_t: a frozen number leaves the noise of R3 in the gap.",
    ),
)
