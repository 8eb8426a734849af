"""Loss-change allocation: how much each parameter tensor moved the loss."""

from analysis.columns import Units, gx_d, gy_d, loss_x, loss_y
from analysis.metric import Claim, Metric
from analysis.rounding import loss_difference_rounding, slope_at_y_rounding, slope_rounding
from analysis.series import cumulative, exponential_mean, running_mean

_allocated = (gx_d + gy_d) / 2
_change = loss_x - loss_y

metric = Metric(
    name="loss_allocation",
    family="D",
    catalogue=("D9",),
    title="Loss change allocated to the tensors",
    paper="Lan, Liu, Zhou, Yosinski (2019), arXiv:1909.01440, with the trapezoid rule",
    formula="⟨(∇f(x) + ∇f(y))/2, x − y⟩",
    units=Units(loss=1),
    value=_allocated,
    tolerance=(slope_rounding + slope_at_y_rounding) / 2,
    pairings=("previous", "next"),
    blocks="share",
    series=(
        running_mean(),
        exponential_mean(0.99),
        cumulative(title="cumulative allocation"),
        cumulative("cumulative_loss_change", "cumulative loss change f(x) − f(y)", _change),
    ),
    claims=(
        Claim(
            name="adds up to the loss change",
            at_most=0,
            over="equivalent",
            quantity=_change - _allocated,
            tolerance=loss_difference_rounding,
            margin=0.05 * _change.mean().abs(),
            null_value=0.0,
            says="The mean slope of the two ends accounts for the change of the minibatch losses: their difference is "
            "0 on average over the recorded steps, within 5 % of the mean change. It depends on no norm.",
            caveat="The trapezoid rule is exact on quadratics; the difference is −1/12 of the third derivative along "
            "the step, and larger at kinks. It does not refute smoothness; where it is large the shares of the tensors "
            "are not to be trusted, and more points of the step are needed.",
        ),
    ),
    caveats=(
        "Block values are exact shares of the model's: below 0 a tensor lowered the loss.",
        "A tensor's share depends on how the others moved.",
    ),
)
