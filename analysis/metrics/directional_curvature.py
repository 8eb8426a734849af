"""Directional curvature: the mean of dᵀHd / dᵀd along each step, without a Hessian."""

from analysis.columns import Units, coupled_decay, d_d, dg_d
from analysis.decay import regularized
from analysis.metric import Claim, Metric
from analysis.rounding import gradient_difference_rounding
from analysis.series import exponential_mean, running_max, running_mean

metric = Metric(
    name="directional_curvature",
    family="A",
    catalogue=("A4", "C2"),
    title="Directional curvature of each step",
    paper="Rayleigh quotient of the Hessian averaged over the step; strong convexity bounds it from below by μ, "
    "L-smoothness from above by L",
    formula="⟨∇f(x) − ∇f(y), x − y⟩ / ‖x − y‖²",
    units=Units(loss=1, distance=-2),
    value=dg_d / d_d,  # in [μ, L]
    pairings=("previous", "next"),
    blocks="trajectory",
    ratio=(dg_d, d_d),
    tolerance=gradient_difference_rounding / d_d.sqrt(),
    series=(running_mean(), exponential_mean(0.99), running_max()),
    variants=(regularized(dg_d / d_d + coupled_decay),),
    claims=(
        Claim(
            name="convex on average",
            at_least=0,
            over="on average",
            null_value=0.0,
            population=True,
            says="The population loss curves upwards along the path: the mean directional curvature over the recorded "
            "steps is at least 0, every step with the same weight however long it is. Fresh minibatches, whole model, "
            "Euclidean norm.",
            caveat="A linear or zero loss has 0. Short steps count as much as long ones here; trapezoid_gap weighs "
            "them by length. A mean at least 0 does not exclude steps along which the loss curves down, and says "
            "nothing of directions the path does not take.",
        ),
        Claim(
            name="convex at 95 % of the steps",
            at_least=0,
            over="quantile",
            at_quantile=0.05,
            null_value=0.0,
            says="The minibatch losses f(·, z_t) curve upwards along 95 % of the recorded steps: the 5 % quantile of "
            "the directional curvature is at least 0. Whole model, Euclidean norm.",
            caveat="It does not refute convexity of the population loss: minibatch curvature scatters around the "
            "population's. Null value of a linear loss: 0.",
        ),
    ),
    caveats=(
        "Linear in the loss, so unbiased for the population on fresh minibatches, unlike smoothness.",
        "At most smoothness in size; equal to it where the step is an eigenvector of the averaged Hessian.",
        "At a kink it is 2/lr for constant steps, as the smoothness is: large values are not curvature by themselves.",
    ),
)
