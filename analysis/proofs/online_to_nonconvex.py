"""Online learning turned into non-convex optimisation by a random factor on every step."""

import polars as pl

from analysis.proofs.terms import OWN_STEP, g_g, previous, step_change, step_change_rounding
from analysis.proving.proof import Constant, Line, Need, Proof

_s = pl.col("random_scale").shift(1)  # of the step that made x_t
_linear = previous("gx_d") / _s  # ⟨g_t, Δ_t⟩
_step, _T = pl.col("step"), previous("d_d").count()
_window = _step // 100
_ends = (_window.shift(-1) != _window).fill_null(True)
_sum_norms = pl.col("wsum_wsum").sqrt().filter(_ends).sum()
_energies = g_g.sum().over(_window).sqrt().filter(_ends).sum()
_whole = step_change.count() == _T  # a sum over some of the changes says nothing of the others
_rho = pl.col("rho").first()
_largest = pl.col("random_scale").max()

proof = Proof(
    name="online_to_nonconvex",
    title="From online learning to non-convex optimisation, by random scaling",
    paper="Cutkosky, Mehta, Orabona (2023); Zhang, Cutkosky (2024)",
    assumes=(
        "x_t = x_{t−1} + s_t Δ_t with a random factor s_t that is independent of everything before",
        "minibatches are drawn independently of the past",
    ),
    needs=(Need("steps with a random factor, recorded as random_scale", pl.col("random_scale").n_unique() > 2),),
    constants=(
        # exponential with mean 1; uniform on [0, 2]; uniform on [0, 1]
        Constant("law", pl.when(_largest > 2).then(0.0).when(_largest > 1).then(2.0).otherwise(1.0), "which law s has"),
        Constant("rho", (previous("d_d").sqrt() / _s.abs()).max(), "longest step Δ"),
    ),
    lines=(
        OWN_STEP,
        Line(
            name="random scaling",
            left=step_change,
            right=pl.when(pl.col("law") == 0).then(1.0).otherwise(pl.col("law") - _s) * _linear,
            relation="=",
            over="mean",
            uses="random scaling",
            says="E[F(x_t) − F(x_{t−1})] = E[w(s_t) ⟨∇F(x_t), Δ_t⟩], w = 1 (exponential s), 2 − s (uniform on [0, 2])",
            tolerance=step_change_rounding,
            margin=0.05 * step_change.mean().abs(),
        ),
        Line(
            name="regret of the online learner",
            left=_linear.sum() + _rho * _sum_norms,
            right=8**0.5 * _rho * _energies,
            over="run",
            uses="the online learner",
            says="Σ_windows [Σ⟨g_t, Δ_t⟩ − min_{‖u‖ ≤ ρ} Σ⟨g_t, u⟩] ≤ 2√2 ρ Σ_windows √(Σ ‖g_t‖²), windows of 100",
        ),
    ),
    bounds=(
        Line(
            name="average gradient of a window",
            left=_sum_norms / _T,
            right=pl.when(_whole).then(-step_change.sum() / (_rho * _T) + 8**0.5 * _energies / _T),
            over="run",
            uses="all lines",
            says="mean over windows of ‖mean g‖ ≤ (F(x_0) − F(x_T))/(ρ T) + 2√2 Σ_windows √(Σ ‖g_t‖²) / T",
        ),
    ),
    caveat=(
        "The law of s is told by its largest value, which takes some 20 steps. Noise alone gives ‖mean g‖ of a window "
        "√(tr Σ / 100). The random factor makes both sides of its line noisy: many steps are needed."
    ),
)
