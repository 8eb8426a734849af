"""Cosine between consecutive steps."""

from analysis.columns import Units, d_d, d_dprev, dprev_dprev
from analysis.metric import Bias, Claim, Metric
from analysis.noise import step_cosine
from analysis.series import Series, cumulative, exponential_mean, running_mean

metric = Metric(
    name="cos_step",
    family="D",
    catalogue=("D6",),
    title="Cosine of consecutive steps",
    paper="Xing, Arpit, Tsirigotis, Bengio (2018), arXiv:1802.08770",
    formula="⟨d_t, d_{t−1}⟩ / (‖d_t‖ ‖d_{t−1}‖), d_t = x_t − x_{t−1}",
    units=Units(),
    value=d_dprev / (d_d * dprev_dprev).sqrt(),
    ratio=(d_dprev, d_d),
    series=(
        running_mean(),
        exponential_mean(0.99),
        Series("ratio_so_far", "Σ ⟨d_t, d_{t−1}⟩ / Σ ‖d_t‖² so far", cumulative(of=d_dprev).of / cumulative(of=d_d).of),
    ),
    claims=(
        Claim(
            name="steps turn back",
            at_most=0,
            over="on average",
            null_value=0.0,
            biases=(
                Bias(
                    rule="momentum",
                    says="With momentum b consecutive steps share most of their gradients: noise alone gives the "
                    "cosine b, with Nesterov's momentum somewhat less, and 0 is the null value of SGD without momentum "
                    "only.",
                    amount=step_cosine.mean(),
                ),
            ),
            says="Consecutive steps point against each other on average over the recorded steps, as on the walls of a "
            "valley that the path bounces between. Steps made by different minibatches, Euclidean norm.",
            caveat="Null values: 0 for pure noise without momentum, b with momentum b; −lr h/2 for SGD at rest on a "
            "noisy convex quadratic of curvature h. A negative cosine is what convexity, smoothness and noise predict "
            "together and does not refute any of them.",
        ),
    ),
    caveats=("Per block the cosine follows the whole trajectory.",),
)
