"""Edge numbers: how much of the promised descent the change of the gradient eats, in any norm and for any optimizer."""

from analysis.columns import Units, d_d, dg_d, gy_d, value
from analysis.metric import Caution, Claim, Metric, Variant
from analysis.rounding import gradient_difference_rounding, slope_at_y_rounding
from analysis.series import Series, cumulative

_change_rounding = gradient_difference_rounding * d_d.sqrt()
_rounding = _change_rounding + 2 * slope_at_y_rounding
_so_far = cumulative(of=dg_d).of / cumulative(of=-gy_d).of

metric = Metric(
    name="edge_number",
    family="C",
    catalogue=("C9",),
    title="Edge number of each step",
    paper="In-sample: lr times the batch sharpness of Andreyev and Beneventano (2024), arXiv:2412.20553, and lr times "
    "the directional sharpness of Kalra et al., arXiv:2601.16979",
    formula="−⟨∇f(x) − ∇f(y), x − y⟩ / ⟨∇f(y), x − y⟩",
    units=Units(),
    value=-dg_d / gy_d,
    tolerance=(_change_rounding + (dg_d / gy_d).abs() * slope_at_y_rounding) / gy_d.abs(),
    pairings=("previous", "next"),
    ratio=(dg_d, -gy_d),
    series=(Series("ratio_so_far", "sum over sum of all steps so far", _so_far),),
    variants=(
        Variant("mean_of_ratios", "batch sharpness averages the steps' own ratios", -dg_d / gy_d, summary=value.mean()),
    ),
    claims=(
        Claim(
            name="progress on fresh minibatches",
            at_most=2,
            over="ratio",
            numerator=dg_d,
            denominator=-gy_d,
            tolerance=_rounding,
            null_value=2.0,
            pairings=("previous",),
            population=True,
            says="Over the recorded steps the population loss falls to second order: −Σ ⟨∇f(x) − ∇f(y), d⟩ is at most "
            "twice Σ ⟨∇f(y), d⟩, measured on fresh minibatches. It depends on no norm.",
            caveat="A balance of progress, not of stability: SGD at rest on a noisy convex quadratic has 2 at every "
            "stable learning rate, so 2 does not show an edge of stability. It reads as stated where Σ ⟨∇f(y), d⟩ is "
            "below 0; a positive sum means steps uphill, whatever the ratio.",
        ),
        Claim(
            name="stable on the minibatch",
            at_most=2,
            over="ratio",
            numerator=dg_d,
            denominator=-gy_d,
            tolerance=_rounding,
            pairings=("next",),
            optimizers=("SGD",),
            optimizers_why="2 is where SGD stabilises; of other optimizers no such value is known",
            says="Over the recorded steps the step does not overshoot on the minibatch that made it: −Σ ⟨∇f(x) − "
            "∇f(y), d⟩ is at most twice Σ ⟨∇f(y), d⟩, so that minibatch losses do not rise to second order. It depends "
            "on no norm.",
            caveat="Null value: lr·h for a noisy quadratic of curvature h. Values near 2 are where batch sharpness is "
            "reported to settle; kinks reach 2 as well, and a value above 2 does not refute smoothness or convexity.",
            cautions=(Caution("momentum", 0, "With momentum the step is not −lr·g, and 2 is no limit of stability."),),
        ),
        Claim(
            name="update correlation stays negative",
            at_most=1,
            over="ratio",
            numerator=dg_d,
            denominator=-gy_d,
            tolerance=_rounding,
            says="Over the recorded steps the gradient at the end of the step still points back along it: −Σ ⟨∇f(x) − "
            "∇f(y), d⟩ is at most Σ ⟨∇f(y), d⟩. On fresh minibatches that is about the population loss, in-sample "
            "about each minibatch by itself. It depends on no norm.",
            caveat="Above 1 the update correlation is positive although the loss may fall at every step; on a "
            "quadratic descent reaches the valley's floor at 1 and crosses it above. It does not refute convexity or "
            "smoothness.",
        ),
    ),
    caveats=(
        "A sum over a sum, never a mean of ratios. Invariant under any linear change of the parameters.",
        "Both sums are exact sums over blocks; a block's own ratio follows the whole trajectory.",
    ),
)
