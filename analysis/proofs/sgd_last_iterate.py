"""SGD on a convex loss: the last iterate, for any schedule of the learning rate."""

import polars as pl

from analysis.proofs.terms import (
    CONVEXITY,
    DROP,
    ENERGY,
    PLAIN_SGD,
    TELESCOPE,
    always,
    ee,
    g_g,
    loss_gap,
    loss_gap_rounding,
    rate,
)
from analysis.proving.proof import Constant, Line, Need, Proof
from analysis.rounding import loss_errors

_RECENT = 100  # steps whose losses say how much one minibatch's loss varies
_loss = pl.col("loss")


def _tail(term: pl.Expr) -> pl.Expr:
    """Σ_{t ≥ k} of a term, at each k."""
    return term.cum_sum(reverse=True)


_S = _tail(rate)
_weight = rate / _S.shift(-1) / _S
"""Of Σ_{t≥k} lr_t (F(x_t) − F(x_k)) in the last loss; null at the last k, which has no share."""

_whole = _loss.is_not_null().all()  # a sum over some of the losses says nothing of the others
_to_iterates = pl.when(_whole).then((_weight * (_tail(rate * _loss) - _loss * _S)).sum())
_energies = _weight * _tail(rate**2 * g_g) / 2
_rounding = loss_errors(_loss.abs()).max()
_T = pl.len()

proof = Proof(
    name="sgd_last_iterate",
    title="SGD on a convex loss, last iterate",
    paper="Orabona (2020); Defazio, Mehta, Mishchenko, Khaled, Cutkosky (2023), Theorem 10; Schaipp et al. (2025)",
    assumes=("F is convex", "minibatches are drawn independently of the past"),
    needs=(*PLAIN_SGD, Need("learning rates above zero", always(rate > 0))),
    constants=(
        Constant("G", g_g.sqrt().max(), "the largest gradient"),
        Constant("noise", _loss.tail(_RECENT).diff().std() / 2**0.5, "standard error of one minibatch's loss"),
        Constant("paired_noise", loss_gap.tail(_RECENT).diff().std() / 2**0.5, "the same of f(x_t) − f(u)"),
    ),
    lines=(
        ENERGY,
        TELESCOPE,
        DROP,
        CONVEXITY,
        Line(
            name="from averages of tails to the last",
            left=pl.when(_whole).then(_loss.last() - (rate * _loss).sum() / rate.sum()),
            right=_to_iterates,
            relation="=",
            over="run",
            uses="algebra",
            says="F(x_T) = mean F + Σ_k lr_k / (S_{k+1} S_k) Σ_{t≥k} lr_t (F(x_t) − F(x_k)), S_k = Σ_{t≥k} lr_t",
            tolerance=1e-12 * _T * _loss.abs().max(),
        ),
        Line(
            name="convexity towards earlier iterates",
            left=_to_iterates,
            right=_energies.sum(),
            over="run",
            uses="convexity",
            says="Σ_{t≥k} lr_t (F(x_t) − F(x_k)) ≤ Σ_{t≥k} lr_t² ‖g_t‖² / 2 for each k, summed with those weights",
            tolerance=_rounding,
            noise=pl.col("noise").first(),
        ),
    ),
    bounds=(
        Line(
            name="last loss above F(u)",
            left=loss_gap.last(),
            right=(ee.first() + (rate**2 * g_g).sum()) / (2 * rate.sum()) + _energies.sum(),
            over="run",
            uses="all lines",
            says="F(x_T) − F(u) ≤ D²/(2S) + Σ lr² G_t²/(2S) + ½ Σ_k lr_k/S_{k+1} Σ_{t≥k} lr_t² G_t²/S_k",
            tolerance=loss_gap_rounding.last(),
            noise=pl.col("paired_noise").first(),
        ),
        Line(
            name="the same at a constant rate",
            left=loss_gap.last(),
            right=ee.first() / (2 * rate.first() * _T)
            + rate.first() * pl.col("G").first() ** 2 * (1 + (1 / pl.int_range(1, _T)).sum()) / 2,
            over="run",
            uses="all lines",
            says="F(x_T) − F(u) ≤ D²/(2 lr T) + lr G² (1 + H_{T−1})/2, G the largest gradient",
            tolerance=loss_gap_rounding.last(),
            noise=pl.col("paired_noise").first(),
            needs=(Need("a constant learning rate without clipping", always(rate == rate.first())),),
        ),
    ),
    caveat=(
        "The last loss and those it is compared with are of one minibatch each; their spread over the last 100 steps "
        "stands for their error. With the run's own last point as u the observed side is close to zero."
    ),
)
