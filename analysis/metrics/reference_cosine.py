"""The angle between the gradient and the way from a reference point."""

from analysis.columns import Units, d_d, gx_d, gx_gx, u_vector
from analysis.decay import decay_slope, decayed_gradient, regularized
from analysis.metric import Claim, Metric
from analysis.noise import noise_of_reference
from analysis.rounding import GRADIENT_ERRORS
from analysis.series import exponential_mean, running_mean

metric = Metric(
    name="reference_cosine",
    family="B",
    catalogue=("B4",),
    title="Cosine between the gradient and the way from a reference point",
    paper="Guille-Escuret et al. (2024), arXiv:2306.11922: the ratio RSI / EB",
    formula="⟨∇f(x), x − x_r⟩ / (‖∇f(x)‖ ‖x − x_r‖)",
    units=Units(),
    value=gx_d / (gx_gx * d_d).sqrt(),
    pairings=("reference",),
    blocks="trajectory",
    tolerance=GRADIENT_ERRORS * u_vector,
    series=(running_mean(), exponential_mean(0.99)),
    variants=(regularized((gx_d + decay_slope) / (decayed_gradient * d_d).sqrt()),),
    claims=(
        Claim(
            name="positive on average",
            at_least=0,
            over="on average",
            null_value=0.0,
            population=True,
            biases=(noise_of_reference((gx_gx * d_d).sqrt()),),
            says="The gradient of the population loss points away from the reference point: the mean cosine over the "
            "recorded steps is at least 0. Whole model, Euclidean norm.",
            caveat="Noise in the gradient shrinks the cosine but does not turn its sign; a reference made of the run "
            "shifts it up (R3). A positive mean does not bound the slope by the loss, see convexity_ratio, and a "
            "negative one does not refute convexity if f(x_r) is the higher loss.",
        ),
    ),
    caveats=(
        "In many dimensions two random directions have a cosine of about 1/√p: small values are not nothing.",
        "On quadratics around the minimiser it lies in [2√(μL)/(μ + L), 1].",
    ),
)
