"""A certificate from the sum of gradients: convexity bounds how far the path may have come."""

from analysis.columns import Units, d_d, gmove, gsum_gsum, u_vector, unbroken, value
from analysis.metric import Claim, Metric
from analysis.rounding import GRADIENT_ERRORS
from analysis.series import running_max

_rounding = GRADIENT_ERRORS * u_vector * (gmove.abs() / gsum_gsum.sqrt() + d_d.sqrt())
_FAR = "no longer than the way come"

metric = Metric(
    name="d_bound",
    family="B",
    catalogue=("B10",),
    title="Lower bound on the distance from the first point to a better one",
    paper="After Defazio, Mishchenko (2023), arXiv:2301.07733, with unit weights",
    formula="−Σ⟨g_s, x_s − x_0⟩ / ‖Σ g_s‖, sums over s ≤ t",
    units=Units(distance=1),
    value=-gmove / gsum_gsum.sqrt(),  # ≤ ‖x_0 − u‖ for every u no worse than the average of the path
    pairings=("reference",),
    blocks="no",
    tolerance=_rounding,
    series=(running_max(),),
    claims=(
        Claim(
            name=_FAR,
            at_most=0,
            quantity=(value - d_d.sqrt()) * unbroken,
            pairings=("reference:initial",),
            says="If the losses are convex along the path and x_t is no worse than the points before it on average, "
            "Σ_{s≤t} f(x_t, z_s) ≤ Σ_{s≤t} f(x_s, z_s), the bound is at most ‖x_t − x_0‖: at every recorded step t, "
            "minibatch losses summed, whole model, Euclidean norm.",
            caveat="A violation refutes convexity along the path without any loss at a reference, provided x_t is the "
            "better point; where it is not, it refutes nothing. No violation is no support: plain SGD with a constant "
            "rate satisfies it for any gradients (R4). In a trace with gaps the sums begin anew after each and the "
            "distance does not: it is judged up to the first.",
        ),
    ),
    caveats=(
        "The value is the same for every reference point; the claim is judged at the initial point, where ‖x − x_r‖ is "
        "how far the path has come.",
    ),
)
