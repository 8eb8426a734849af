"""Strong growth: does the noise of the minibatch vanish with the gradient?"""

import polars as pl

from analysis.columns import Units, ga_ga, ga_gb, gb_gb, u_vector, value
from analysis.metric import Claim, Metric
from analysis.rounding import GRADIENT_ERRORS
from analysis.series import Series

_energy = (ga_ga + gb_gb + 2 * ga_gb) / 4  # ‖(g_a + g_b)/2‖², of the halves themselves
_known = value.fill_nan(None).is_not_null()
_signal = pl.max_horizontal(ga_gb, pl.lit(0.0))

metric = Metric(
    name="strong_growth",
    family="F",
    catalogue=("F4",),
    title="Strong-growth constant of each step",
    paper="Strong growth E‖g‖² ≤ ρ‖∇F‖², Schmidt, Le Roux (2013), arXiv:1308.6370; relaxed: E‖g‖² ≤ A(F − F_*) + "
    "B‖∇F‖² + C, Khaled, Richtárik (2020), arXiv:2002.03329",
    formula="‖(g_a + g_b)/2‖² / ⟨g_a, g_b⟩; over a window Σ over Σ",
    units=Units(),
    value=_energy / ga_gb,
    blocks="trajectory",
    ratio=(_energy, ga_gb),
    tolerance=GRADIENT_ERRORS * u_vector * (ga_ga + gb_gb) / ga_gb.abs() * (1 + (_energy / ga_gb).abs()),
    series=(
        Series(
            "cumulative_ratio",
            "sum of squared minibatch gradients so far / sum of squared gradient norms so far",
            pl.when(_known).then(_energy).cum_sum() / pl.when(_known).then(ga_gb).cum_sum(),
        ),
    ),
    claims=(
        Claim(
            name="relaxed growth, fitted on the first half",
            at_most=2,
            over="envelope",
            quantity=_energy,
            tolerance=GRADIENT_ERRORS * u_vector * (ga_ga + gb_gb),
            at_quantile=0.95,
            regressors=(_signal, pl.col("loss_x")),
            population=True,
            says="The squared minibatch gradient is bounded by a constant plus multiples of the squared gradient norm "
            "of the population loss and of the loss: an envelope over 95 % of the recorded steps of the first half of "
            "the run is exceeded by at most twice the nominal 5 % in the second half. Whole model, Euclidean norm.",
            caveat="With a constant in it the bound is weak: bounded variance satisfies it too, and strong growth is "
            "the case without one. The halves' noisy product stands for the gradient norm, which flattens the fit. A "
            "violation refutes these constants, not relaxed growth with larger ones.",
        ),
    ),
    caveats=("1 + noise_scale of the same window: ratios of single steps are noise; read windows, sum over sum.",),
)
