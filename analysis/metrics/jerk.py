"""Third-order change of the loss along each step."""

from analysis.columns import Units, d_d, gx_d, gy_d, loss_x, loss_y
from analysis.metric import Metric
from analysis.rounding import forward_difference_rounding, loss_difference_rounding
from analysis.series import exponential_mean, running_mean

metric = Metric(
    name="jerk",
    family="A",
    catalogue=("A10",),
    title="Jerk: third-order change along each step",
    paper="Sum of the convexity gap and the forward gap, which cancel on quadratics; the third derivative is what "
    "self-stabilisation analyses (central flows) rest on",
    formula="(2 (f(x) − f(y)) − ⟨∇f(x) + ∇f(y), x − y⟩) / ‖x − y‖³",
    units=Units(loss=1, distance=-3),
    value=(2 * (loss_x - loss_y) - gx_d - gy_d) / d_d**1.5,  # −D³f[d, d, d]/(6 ‖d‖³), exactly on cubics
    pairings=("previous", "next"),
    blocks="no",
    tolerance=(loss_difference_rounding + forward_difference_rounding) / d_d**1.5,
    series=(running_mean(), exponential_mean(0.99)),
    caveats=(
        "Descriptive: no analysis claims a sign. 0 on every quadratic, −(1/6) of the third derivative along the unit "
        "step on cubics.",
        "Two nearly equal numbers are subtracted and divided by a small cube: compare it with its tolerance first.",
    ),
)
