"""Adam and AdamW on a convex loss: the energy in the optimizer's own metric, and the regret that follows."""

from dataclasses import replace

import polars as pl

from analysis.proofs.terms import CONVEXITY, OWN_STEP, always, ge, loss_gap, loss_gap_rounding, lr, sums
from analysis.proving.proof import Line, Need, Proof

_pushed = 2 * lr * (pl.col("mhat_e") + pl.col("decay_e"))
_e, _e_ahead = pl.col("ee_adam"), pl.col("ee_ahead")
_d = pl.col("dd_adam").shift(-1)  # of the step that leaves x_t
_slip = 2 * pl.col("slip_e").abs()
_rounding = sums * (_e + _e_ahead + _pushed.abs())
_grown = (_e - _e_ahead.shift(1)).fill_null(0.0)  # ‖x_t − u‖² in D_t less that in D_{t−1}
_inner = lr * (ge - pl.col("mhat_e") - pl.col("decay_e"))
_used = _d.is_not_null()  # the last step's length is not known in its metric
_share = lr / lr.filter(_used & loss_gap.is_not_null()).sum()  # not times the clip factor: Adam's step is not −lr g
_regret = (_e.first() - _e_ahead.filter(_used).last() + _grown.filter(_used).sum() + _d.sum()) / 2 + _inner.filter(
    _used
).sum()

proof = Proof(
    name="adam_energy",
    title="Adam and AdamW on a convex loss, in their own metric",
    paper="Kingma, Ba (2015), Theorem 4.1; Reddi, Kale, Kumar (2018)",
    assumes=("F is convex towards u", "the metric D = √v̂ + ε never shrinks", "minibatches are independent of the past"),
    needs=(
        Need("Adam and AdamW", optimizers=("Adam", "AdamW")),
        Need("the run's last point as u", reference="last"),
        Need("one learning rate for all parameters", lr.is_not_null().all()),
        Need("steps without a random factor", always(pl.col("random_scale").fill_null(1.0) == 1)),
    ),
    lines=(
        OWN_STEP,
        Line(
            name="energy of a step",
            left=_pushed,
            right=_e - _e_ahead + _d,
            relation="=",
            uses="the optimizer",
            says="2 lr (⟨m̂, e⟩ + λ⟨Dx, e⟩) = ‖e‖²_D − ‖e⁺‖²_D + ‖d⁺‖²_D",
            tolerance=_slip + _rounding,
        ),
        Line(
            name="sum of the energies",
            left=(lr * ge).filter(_used).sum(),
            right=_regret,
            relation="=",
            over="run",
            uses="algebra",
            says="Σ lr ⟨g, e⟩ = ½[‖e_0‖²_{D_0} − ‖e_T‖²_{D_{T−1}} + Σ (‖e_t‖²_{D_t} − ‖e_t‖²_{D_{t−1}}) + Σ ‖d_t‖²_D] "
            "+ Σ lr (⟨g, e⟩ − ⟨m̂, e⟩ − λ⟨Dx, e⟩)",
            tolerance=(_slip + _rounding).filter(_used).sum(),
        ),
        Line(
            name="the metric grows",
            left=_e_ahead.shift(1),
            right=_e,
            uses="a growing metric",
            says="‖x_t − u‖²_{D_{t−1}} ≤ ‖x_t − u‖²_{D_t}: then the sum of the changes is at most max ‖e‖²_∞ tr D_T",
            tolerance=sums * (_e + _e_ahead.shift(1)),
        ),
        replace(CONVEXITY, weight=lr),
    ),
    bounds=(
        Line(
            name="average loss above F(u)",
            left=(_share * loss_gap).filter(_used).sum(),
            right=(_regret + _e_ahead.filter(_used).last() / 2) / lr.filter(_used).sum(),
            over="run",
            uses="all lines",
            says="Σ lr (F(x_t) − F(u)) / Σ lr ≤ the right side above without ‖e_T‖², over Σ lr",
            tolerance=(_share * loss_gap_rounding).filter(_used).sum(),
        ),
    ),
    caveat=(
        "Adam's metric does shrink where gradients get smaller (Reddi, Kale, Kumar 2018); AMSGrad's does not, but for "
        "the correction of its bias. A metric that shrinks does not loosen the bound above, which takes the changes as "
        "they were; it breaks the step from there to a rate in T."
    ),
)
