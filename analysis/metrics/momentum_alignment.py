"""Momentum alignment: does the optimizer's memory agree with the gradient?"""

from analysis.columns import Units, g_m, g_mprev, gx_gx, m_m, u_vector
from analysis.metric import Claim, Metric
from analysis.rounding import GRADIENT_ERRORS
from analysis.series import cumulative, exponential_mean, running_mean

metric = Metric(
    name="momentum_alignment",
    family="D",
    catalogue=("D7",),
    title="Alignment of momentum and gradient",
    paper="Stated for momentum as torch keeps it; after the decomposition of steps in Tran, Zhang, Cutkosky (2024), "
    "arXiv:2407.01825, section 4.2",
    formula="⟨g_t, m_t⟩ / (‖g_t‖ ‖m_t‖)",
    units=Units(),
    value=g_m / (gx_gx * m_m).sqrt(),
    tolerance=2 * GRADIENT_ERRORS * u_vector,
    series=(
        running_mean(),
        exponential_mean(0.99),
        cumulative("cumulative_fresh", "cumulative ⟨g_t, m_{t−1}⟩, on fresh minibatches", g_mprev),
    ),
    claims=(
        Claim(
            name="the buffer agrees with fresh gradients",
            at_least=0,
            over="on average",
            quantity=g_mprev,
            tolerance=GRADIENT_ERRORS * u_vector * (gx_gx * m_m).sqrt(),
            null_value=0.0,
            population=True,
            says="The buffer before the step points the way of the next gradient: ⟨∇f(x_t, z_t), m_{t−1}⟩ is at least "
            "0 on average over the recorded steps. Population, fresh minibatches, Euclidean norm.",
            caveat="Null value: 0 for pure noise. For SGD it is −(update correlation)/lr up to weight decay, so at "
            "rest on a noisy convex quadratic it is below 0: a negative value does not refute convexity or smoothness, "
            "and does not say that momentum hurts.",
        ),
    ),
    caveats=(
        "The value is in-sample, for m_t contains g_t: with momentum b pure noise has the cosine √(1−b²), 0.44 at 0.9, "
        "and without momentum it is 1. Only ⟨g_t, m_{t−1}⟩ is fresh.",
        "m is the first moment as the optimizer's formula makes it from the clipped gradients, weight decay included "
        "where it is coupled.",
        "Per block the cosine follows the whole trajectory.",
    ),
)
