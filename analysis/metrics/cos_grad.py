"""Cosine between the gradients of consecutive steps."""

from analysis.biases import reshuffled_cosine
from analysis.columns import Units, g_gprev, gprev_gprev, gx_gx, u_vector
from analysis.metric import Claim, Metric
from analysis.rounding import GRADIENT_ERRORS
from analysis.series import Series, cumulative, exponential_mean, running_mean

metric = Metric(
    name="cos_grad",
    family="D",
    catalogue=("D6",),
    title="Cosine of consecutive gradients",
    paper="Xing, Arpit, Tsirigotis, Bengio (2018), arXiv:1802.08770",
    formula="⟨g_t, g_{t−1}⟩ / (‖g_t‖ ‖g_{t−1}‖)",
    units=Units(),
    value=g_gprev / (gx_gx * gprev_gprev).sqrt(),
    tolerance=2 * GRADIENT_ERRORS * u_vector,
    ratio=(g_gprev, gx_gx),
    series=(
        running_mean(),
        exponential_mean(0.99),
        Series(
            "ratio_so_far", "Σ ⟨g_t, g_{t−1}⟩ / Σ ‖g_t‖² so far", cumulative(of=g_gprev).of / cumulative(of=gx_gx).of
        ),
    ),
    claims=(
        Claim(
            name="gradients alternate",
            at_most=0,
            over="on average",
            null_value=0.0,
            biases=(reshuffled_cosine,),
            says="Consecutive minibatch gradients point against each other on average over the recorded steps, as on "
            "the walls of a valley that the path bounces between. Gradients of different minibatches, Euclidean norm.",
            caveat="Null values: 0 for pure noise; −lr h/2 for SGD at rest on a noisy convex quadratic of curvature h, "
            "down to −1 at lr = 2/h. A negative cosine is what convexity, smoothness and noise predict together: it "
            "does not refute any of them, and it does not show a valley.",
        ),
    ),
    caveats=(
        "The two gradients are of two minibatches, so noise shortens the cosine: it is that of the population "
        "gradients times the share of signal in ‖g‖².",
        "Per block the cosine follows the whole trajectory.",
    ),
)
