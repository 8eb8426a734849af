"""Progress ratio: how much of the promised change of loss came."""

from analysis.columns import Units, gx_d, gy_d, loss_x, loss_y
from analysis.metric import Claim, Metric
from analysis.rounding import forward_difference_rounding, loss_rounding, slope_at_y_rounding
from analysis.series import Series, cumulative

_change = loss_x - loss_y
_changes, _promised, _at_the_end = (cumulative(of=of).of for of in (_change, gy_d, gx_d))

metric = Metric(
    name="progress_ratio",
    family="D",
    catalogue=("D4",),
    title="Progress ratio",
    paper="Actual over predicted reduction, as trust-region methods use it; for the descent lemma see Tran, Zhang, "
    "Cutkosky (2024), arXiv:2407.01825, section 4.2",
    formula="(f(x) − f(y)) / ⟨∇f(y), x − y⟩",
    units=Units(),
    value=_change / gy_d,
    tolerance=(loss_rounding + (_change / gy_d).abs() * slope_at_y_rounding) / gy_d.abs(),
    pairings=("previous", "next"),
    blocks="no",
    ratio=(-_change, -gy_d),
    series=(
        Series("ratio_so_far", "Σ loss change / Σ ⟨∇f(y), d⟩ of all steps so far", _changes / _promised),
        Series("over_update_correlation", "Σ loss change / Σ ⟨∇f(x), d⟩ so far", _changes / _at_the_end),
    ),
    claims=(
        Claim(
            name="promised progress comes",
            at_least=0,
            over="ratio",
            numerator=-_change,
            denominator=-gy_d,
            tolerance=forward_difference_rounding,
            null_value=0.0,
            says="Over the recorded steps the loss moves the way the gradient at their start promised: Σ (f(x) − f(y)) "
            "/ Σ ⟨∇f(y), x − y⟩ is at least 0. Population on fresh minibatches, each minibatch's own loss in-sample; "
            "it depends on no norm.",
            caveat="Null value: 0 on fresh minibatches for SGD at rest on a noisy convex quadratic, whatever the "
            "learning rate; 1 on a linear loss. It reads as progress where Σ ⟨∇f(y), d⟩ is below 0. A value below 0 "
            "refutes descent, not convexity or smoothness.",
        ),
        Claim(
            name="no more than promised",
            at_most=1,
            over="ratio",
            numerator=-_change,
            denominator=-gy_d,
            tolerance=forward_difference_rounding,
            says="Over the recorded steps the loss falls by no more than the gradient at their start promised: Σ (f(x) "
            "− f(y)) / Σ ⟨∇f(y), x − y⟩ is at most 1, as it must be where the loss is convex and steps go downhill. "
            "Population on fresh minibatches, each minibatch's own loss in-sample; it depends on no norm.",
            caveat="Above 1 the loss curves downwards along the steps on average: it refutes convexity there, provided "
            "that Σ ⟨∇f(y), d⟩ is below 0, not descent. Null value: 1 on a linear loss.",
        ),
    ),
    caveats=(
        "A sum over a sum, never a mean of ratios.",
        "Gradient descent on a quadratic has 1 − lr κ/2, κ the curvature along the step: 1/2 at lr = 1/κ, 0 at lr = "
        "2/κ. On quadratics it is 1 − (edge number)/2.",
    ),
)
