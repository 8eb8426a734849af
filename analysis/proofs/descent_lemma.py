"""A smooth loss, convex or not: the descent lemma."""

import polars as pl

from analysis.proofs.terms import PLAIN_SGD, previous, rate, step_change, step_change_rounding
from analysis.proving.proof import Constant, Line, Proof
from analysis.rounding import GRADIENT_ERRORS

_L = pl.col("L")
_dd, _slope = previous("d_d"), previous("gy_d")
_ratio = (previous("dg_dg") / _dd).filter(_dd > 0)
_square = previous("dg_dg").sqrt()
_gradient_rounding = GRADIENT_ERRORS * pl.col("u_vector") * (previous("gx_gx").sqrt() + previous("gy_gy").sqrt())
_down = (rate * pl.col("ga_gb")).shift(1)  # of the step that made x_t
_rate = rate.shift(1)


def _second(term: pl.Expr) -> pl.Expr:
    """Over the second half of the steps, which the constant was not made from."""
    return term.tail(pl.len() - pl.len() // 2)


_decrease = -_second(step_change).sum() + pl.col("L").first() / 2 * _second(_dd).sum()
_rounding = _second(step_change_rounding).sum()

proof = Proof(
    name="descent_lemma",
    title="A smooth loss, convex or not: the descent lemma",
    paper="Ghadimi, Lan (2013)",
    assumes=("∇F is L-Lipschitz; L is twice the largest ‖Δg‖/‖d‖ in the first half of the run",),
    constants=(
        # twice: of two equal samples the one has the larger maximum as often as the other
        Constant("L", 2 * _ratio.max().sqrt(), "twice the largest ‖Δg‖/‖d‖ in the first half", first_half=True),
    ),
    lines=(
        Line(
            name="smoothness",
            left=_square,
            right=_L * _dd.sqrt(),
            uses="smoothness",
            says="‖∇f(x_t) − ∇f(x_{t−1})‖ ≤ L ‖d_t‖ on the same minibatch, in the second half",
            tolerance=_gradient_rounding,
            second_half=True,
        ),
        Line(
            name="descent lemma",
            left=step_change,
            right=_slope + _L / 2 * _dd,
            uses="smoothness",
            says="f(x_t) − f(x_{t−1}) ≤ ⟨∇f(x_{t−1}), d_t⟩ + L/2 ‖d_t‖² on z_t, in the second half",
            tolerance=step_change_rounding,
            second_half=True,
        ),
        Line(
            name="the step is down the gradient",
            left=_slope,
            right=-_down,
            relation="=",
            over="mean",
            uses="independent minibatches",
            says="E⟨∇f(x_{t−1}, z_t), d_t⟩ = −lr ‖∇F(x_{t−1})‖², the latter from the two halves of z_{t−1}",
            tolerance=_gradient_rounding * _dd.sqrt(),
            margin=0.05 * _slope.mean().abs(),
            needs=PLAIN_SGD,
        ),
    ),
    bounds=(
        Line(
            name="first-order decrease",
            left=-_second(_slope).sum(),
            right=_decrease,
            over="run",
            uses="smoothness",
            says="−Σ⟨∇f(x_{t−1}, z_t), d_t⟩ ≤ F(x_{T/2}) − F(x_T) + L/2 Σ ‖d_t‖², in the second half",
            tolerance=_rounding,
        ),
        Line(
            name="mean squared gradient",
            left=_second(_down).sum() / _second(_rate).sum(),
            right=_decrease / _second(_rate).sum(),
            over="run",
            uses="all lines",
            says="Σ lr ‖∇F(x_t)‖² / Σ lr ≤ (F(x_{T/2}) − F(x_T) + L/2 Σ lr² ‖g_t‖²) / Σ lr, in the second half",
            tolerance=_rounding / _second(_rate).sum(),
            needs=PLAIN_SGD,
        ),
    ),
    caveat="L is of the minibatch losses: at least that of F. A larger L than shown so far makes the lines true.",
)
