"""Loss-change allocation along the whole step, exact: how much each tensor moved the loss."""

from analysis.columns import Units, d_d, gx_gx, u_vector
from analysis.columns_of_replays import path_slope, profile_change, profile_loss
from analysis.metric import Claim, Metric
from analysis.rounding import GRADIENT_ERRORS, loss_errors
from analysis.series import cumulative, exponential_mean, running_mean

metric = Metric(
    name="path_allocation",
    family="D",
    catalogue=("D9", "H7"),
    title="Loss change allocated to the tensors, along the whole step",
    paper="Lan, Liu, Zhou, Yosinski (2019), arXiv:1909.01440, with Gauss quadrature",
    formula="∫₀¹ ⟨∇_k f(x_{t−1} + s d, z_t), d_k⟩ ds, d = x_t − x_{t−1}",
    units=Units(loss=1),
    value=path_slope,
    blocks="share",
    tolerance=GRADIENT_ERRORS * u_vector * (gx_gx * d_d).sqrt(),
    series=(
        running_mean(),
        exponential_mean(0.99),
        cumulative(title="cumulative allocation"),
        cumulative("cumulative_loss_change", "cumulative loss change φ(1) − φ(0)", profile_change),
    ),
    claims=(
        Claim(
            name="adds up to the loss change",
            at_most=0,
            over="equivalent",
            quantity=profile_change - path_slope,
            tolerance=loss_errors(profile_loss),
            margin=0.01 * profile_change.abs().mean(),
            null_value=0.0,
            says="The slopes along the step integrate to the change of the minibatch loss, as for every gradient that "
            "belongs to its loss: the difference is 0 on average over the recorded steps, within 1 % of the mean "
            "absolute change. It depends on no norm.",
            caveat="A kink leaves a difference of the order of 1/nodes, which does not refute anything but the "
            "quadrature; one that does not shrink with more nodes is a gradient that is not of this loss (a "
            "stop-gradient, a straight-through estimator).",
        ),
    ),
    caveats=(
        "Block values are exact shares of the model's: below 0 a tensor lowered the loss.",
        "loss_allocation is the same by the trapezoid rule, from recorded gradients alone.",
    ),
)
