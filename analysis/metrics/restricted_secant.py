"""Restricted secant inequality: how steeply the loss climbs away from a reference point."""

from analysis.columns import Units, d_d, gx_d, gx_gx, u_vector
from analysis.decay import decay_slope, regularized
from analysis.metric import Claim, Metric
from analysis.noise import noise_of_reference
from analysis.rounding import GRADIENT_ERRORS
from analysis.series import exponential_mean, running_mean

metric = Metric(
    name="restricted_secant",
    family="B",
    catalogue=("B4", "B5"),
    title="Restricted secant constant of each step",
    paper="Guille-Escuret et al. (2024), arXiv:2306.11922: RSI; one-point strong convexity",
    formula="⟨∇f(x), x − x_r⟩ / ‖x − x_r‖²",
    units=Units(loss=1, distance=-2),
    value=gx_d / d_d,  # ≥ μ
    pairings=("reference",),
    blocks="trajectory",
    ratio=(gx_d, d_d),
    tolerance=GRADIENT_ERRORS * u_vector * (gx_gx / d_d).sqrt(),
    series=(running_mean(), exponential_mean(0.99)),
    variants=(regularized((gx_d + decay_slope) / d_d),),
    claims=(
        Claim(
            name="positive on average",
            at_least=0,
            over="on average",
            null_value=0.0,
            population=True,
            biases=(noise_of_reference(d_d),),
            says="The population loss satisfies the restricted secant inequality towards the reference point with some "
            "μ ≥ 0 on average over the recorded steps. Whole model, Euclidean norm.",
            caveat="Steps close to the reference weigh most. A last iterate is a reference that noise alone makes "
            "attractive (R3), so a positive mean does not by itself support any property of the loss: compare the "
            "bias, and the negative controls. A negative mean does not refute the inequality around a minimiser "
            "elsewhere.",
        ),
        Claim(
            name="positive at 95 % of the steps",
            at_least=0,
            over="quantile",
            at_quantile=0.05,
            null_value=0.0,
            says="The minibatch gradients satisfy the restricted secant inequality towards the reference point with "
            "some μ ≥ 0 at 95 % of the recorded steps: the 5 % quantile is at least 0. Whole model, Euclidean norm.",
            caveat="Noise of the minibatch scatters the values around the population's, so a negative quantile does "
            "not refute the inequality for the population loss.",
        ),
    ),
    caveats=(
        "With error_bound L and this constant μ, gradient descent with lr = μ/L² contracts ‖x − x_r‖² by 1 − μ²/L².",
        "On quadratics around the minimiser it is eᵀHe/eᵀe. It depends on the norm, unlike convexity_ratio.",
    ),
)
