"""Discounted regret: what the steps lose to standing still when old gradients are forgotten and long steps cost."""

import polars as pl

from analysis.columns import Units, d_d, gx_d, gx_gx, lr_d, scale_d, value
from analysis.metric import Bias, Caution, Claim, Metric
from analysis.rounding import slope_rounding
from analysis.series import Series, exponential_mean, running_mean

BETA = 0.99  # the authors' own
_momentum = pl.col("momentum")
_learner = (_momentum > 0) & (_momentum <= BETA)
_mu = pl.when(_learner).then((BETA - _momentum) / lr_d)
_cost = _mu / 2 * d_d / scale_d**2
_linear = gx_d / scale_d
_stretch = (pl.col("step").diff() != 1).fill_null(True).cum_sum()


def _discounted(of: pl.Expr) -> pl.Expr:
    """Σ β^{t−s} of the terms so far, since the last gap in the steps."""
    known = pl.when(value.is_finite()).then(of)
    mean = known.ewm_mean(alpha=1 - BETA, adjust=True, ignore_nulls=True).over(_stretch)
    count = known.is_not_null().cum_sum().over(_stretch)
    return mean * (1 - pl.lit(BETA).pow(count)) / (1 - BETA)


metric = Metric(
    name="discounted_regret",
    family="E",
    catalogue=("E2",),
    title="Linear loss of the unscaled step with the cost of its length",
    paper="Zhang and Cutkosky (2024), arXiv:2405.09742; as the authors' code has them, the regret is "
    "Σ β^(T−t) (⟨g_t, Δ_t − u⟩ + μ‖Δ_t‖²/2) and the learner Δ ← β/(1 + ημ) (Δ − η g)",
    formula="⟨g_t, Δ_t⟩ + μ‖Δ_t‖²/2 with x_t − x_{t−1} = s_t Δ_t, μ = (0.99 − b)/lr, b the momentum",
    units=Units(loss=1),
    value=_linear + _cost,
    tolerance=slope_rounding / scale_d,
    blocks="share",
    series=(
        running_mean(),
        exponential_mean(BETA),
        Series(
            "discounted", "regret to standing still, Σ 0.99^(t−s) (⟨g, Δ⟩ + μ‖Δ‖²/2)", _discounted(value), "cumulative"
        ),
        Series("discounted_linear", "its linear part, Σ 0.99^(t−s) ⟨g, Δ⟩", _discounted(_linear), "cumulative"),
        Series(
            "guarantee",
            "what SGD with momentum at a constant rate cannot exceed, Σ 0.99^(t−s) lr‖g‖²/(2b)",
            _discounted(lr_d * gx_gx / (2 * _momentum)),
            "cumulative",
        ),
    ),
    claims=(
        Claim(
            name="no worse than standing still",
            at_most=0,
            over="on average",
            optimizers=("SGD",),
            optimizers_why="μ is read from its momentum and rate, with which it is the paper's learner",
            cautions=(
                Caution("nesterov", 0, "Nesterov's momentum is not the paper's learner; μ stands for nothing there."),
                Caution("dampening", 0, "With dampening the rate of the paper's learner is another one."),
            ),
            population=True,
            biases=(
                Bias(
                    "length",
                    "The cost of the steps' length, μ‖Δ‖²/2 on average: what pure noise would give, for its linear "
                    "losses are 0 in the mean",
                    _cost.mean(),
                ),
            ),
            says="The linear losses ⟨∇f(x_t, z_t), Δ_t⟩ of the unscaled steps with the cost μ‖Δ_t‖²/2 of their length "
            "are at most 0 on average over the recorded steps: no discounted regret to standing still, whose sum over "
            "the run this is up to its end. Fresh minibatches, Euclidean norm.",
            caveat="Null value: the cost of the length, above 0, for pure noise. 0.99 is a choice, and μ follows from "
            "it. The regret to a step u other than 0 needs the length of the discounted sum of gradients, which is not "
            "recorded. A positive value does not refute convexity or smoothness, and is compatible with the paper's "
            "bounds as long as it stays below the guarantee.",
        ),
    ),
    caveats=(
        "SGD with momentum b, rate lr and torch's update is the paper's learner with η = lr/b and μ = (β − b)/lr. "
        "Whatever the gradients, at a constant rate its regret to standing still is at most Σ β^(T−t) η‖g_t‖²/2, the "
        "gradient of the step before the first pair included, which is not in the series.",
        "Without momentum, or with one above 0.99, there is no such μ, and no value. Sums begin at the run's start or "
        "after its last gap; steps without a value do not count.",
    ),
)
