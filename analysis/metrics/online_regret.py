"""Regret of the steps: is training a good player of the online linear game that its gradients set up?"""

import polars as pl

from analysis.columns import Units, d_d, gsum_gsum, gx_d, scale_d
from analysis.metric import Claim, Metric
from analysis.rounding import slope_rounding
from analysis.series import Series, cumulative, exponential_mean, running_mean

_loss = gx_d / scale_d
_starts = (pl.col("step").diff() != 1).fill_null(True)


def _since_gap(of: pl.Expr) -> pl.Expr:
    """Sum so far since the last gap in the steps, as ``gsum_gsum`` counts."""
    total = cumulative(of=of).of
    before = total.forward_fill().shift(1).fill_null(0)
    return total - pl.when(_starts).then(before).forward_fill()


_length = _since_gap(d_d.sqrt() / scale_d) / _since_gap(pl.lit(1.0) + 0 * _loss)
_gain = _length * gsum_gsum.sqrt()

metric = Metric(
    name="online_regret",
    family="E",
    catalogue=("E2",),
    title="Linear losses and regret of the unscaled steps",
    paper="Cutkosky, Mehta, Orabona (2023), arXiv:2302.03775; Zhang and Cutkosky (2024), arXiv:2405.09742",
    formula="⟨g_t, Δ_t⟩ with x_t − x_{t−1} = s_t Δ_t",
    units=Units(loss=1),
    value=_loss,
    tolerance=slope_rounding / scale_d,
    blocks="share",
    series=(
        running_mean(),
        exponential_mean(0.99),
        cumulative(title="cumulative linear loss Σ ⟨g_t, Δ_t⟩"),
        Series(
            "best_fixed", "what the best fixed step of the mean length would have had, −ρ ‖Σ g‖", -_gain, "cumulative"
        ),
        Series("regret", "regret to it, Σ ⟨g_t, Δ_t⟩ + ρ ‖Σ g‖", _since_gap(_loss) + _gain, "cumulative"),
    ),
    claims=(
        Claim(
            name="no worse than standing still",
            at_most=0,
            over="on average",
            null_value=0.0,
            population=True,
            says="The linear losses ⟨∇f(x_t, z_t), Δ_t⟩ of the unscaled steps are at most 0 on average over the "
            "recorded steps: no regret to standing still. With scales from Exp(1) that is the statement that the "
            "population loss falls. Fresh minibatches; it depends on no norm.",
            caveat="Null value: 0 for pure noise. Without random scales the same mean is the update correlation and is "
            "above 0 at rest on a noisy convex quadratic. Regret to the best fixed step is at least this one; it may "
            "grow like the number of steps where this is 0. A positive value does not refute convexity or smoothness.",
        ),
    ),
    caveats=(
        "Regret to u = −ρ Σg/‖Σg‖, ρ the mean length of Δ: the analysis of online-to-non-convex conversion needs it to "
        "grow more slowly than the number of steps. Σ g and both sums begin at the run's start or after its last gap: "
        "the first gradient there counts as a round in which the player stood still, for no recorded step answers it.",
        "Block values are exact shares of the linear loss; a block's regret is to its own best fixed step.",
    ),
)
