"""Oscillation index: the share of the movement that goes back and forth."""

from analysis.columns import Units, d_d, d_dprev
from analysis.metric import Bias, Claim, Metric
from analysis.noise import step_cosine
from analysis.series import Series, cumulative

_back_and_forth = (d_d - d_dprev) / 2

metric = Metric(
    name="oscillation",
    family="D",
    catalogue=("D10",),
    title="Oscillation index",
    paper="After Xing, Arpit, Tsirigotis, Bengio (2018), arXiv:1802.08770",
    formula="(1 − ⟨d_t, d_{t−1}⟩ / ‖d_t‖²) / 2, d_t = x_t − x_{t−1}",
    units=Units(),
    value=_back_and_forth / d_d,
    ratio=(_back_and_forth, d_d),
    series=(
        Series(
            "ratio_so_far",
            "sum over sum of all steps so far",
            cumulative(of=_back_and_forth).of / cumulative(of=d_d).of,
        ),
    ),
    claims=(
        Claim(
            name="no more than noise",
            at_most=0.5,
            over="ratio",
            numerator=_back_and_forth,
            denominator=d_d,
            null_value=0.5,
            biases=(
                Bias(
                    rule="momentum",
                    says="With momentum b noise alone has the index (1 − b)/2, with Nesterov's momentum somewhat more; "
                    "this is how far that is from 1/2.",
                    amount=-step_cosine.mean() / 2,
                ),
            ),
            says="At most half of Σ ‖d_t‖² over the recorded steps is movement that reverses from step to step: "
            "(1 − Σ ⟨d_t, d_{t−1}⟩ / Σ ‖d_t‖²)/2 ≤ 1/2. Steps as made, each by its minibatch, Euclidean norm.",
            caveat="Null values: 1/2 for independent steps, (1 + lr h/2)/2 for SGD at rest on a noisy "
            "convex quadratic of curvature h; 1 for pure bouncing, 0 for a straight path. A value above 1/2 does not "
            "refute convexity or smoothness.",
        ),
    ),
    caveats=(
        "A sum over a sum; a single step's own value may lie outside [0, 1].",
        "Per block the index follows the whole trajectory.",
    ),
)
