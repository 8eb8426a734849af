"""Heavy-ball SGD on a convex loss: the average iterate, through the virtual iterate."""

import polars as pl

from analysis.proofs.terms import (
    CONVEXITY,
    MEAN_GAP,
    MEAN_GAP_ROUNDING,
    always,
    ee,
    g_g,
    ge,
    lr,
    previous,
    reference,
    slip_room,
    step_step,
    sums,
)
from analysis.proving.proof import Line, Need, Proof

_b = pl.col("momentum")
_beta = _b / (1 - _b)
_gd = previous("gx_d").fill_null(0.0)  # the first step has none before it
_dd = previous("d_d").fill_null(0.0)
_eta = lr / (1 - _b)
# Z = x + β d, and Z⁺ by polarisation from this row and the one before; no formula of an optimizer in either
_e_d = (reference("d_ahead").shift(1) + step_step.shift(1)).fill_null(0.0)
_z = ee + 2 * _beta * _e_d + _beta**2 * _dd
_z_ahead = (
    ee + 2 * reference("d_ahead") + step_step + 2 * _beta * (reference("d_ahead") + step_step) + _beta**2 * step_step
)
_slip = (1 + _beta) * (slip_room.sqrt() + slip_room.sqrt().shift(1).fill_null(0.0))
_reach = ee.sqrt() + (1 + _beta) * (step_step.sqrt() + _dd.sqrt()) + _eta * g_g.sqrt()
_tolerance = 2 * _z_ahead.abs().sqrt() * _slip + _slip**2 + sums * _reach**2
_first = {name: pl.col(name).first() for name in ("lr", "momentum")}
_scale = (1 - _first["momentum"]) / (2 * _first["lr"])
_carried = _first["momentum"] / (1 - _first["momentum"]) * _gd.sum()
_energy = _first["lr"] / (2 * (1 - _first["momentum"])) * g_g.sum()

proof = Proof(
    name="sgd_momentum",
    title="Heavy-ball SGD on a convex loss, average iterate",
    paper="Ghadimi, Feyzmahdavian, Johansson (2015); Sebbouh, Gower, Defazio (2021)",
    assumes=("F is convex towards u", "minibatches are drawn independently of the past"),
    needs=(
        Need("SGD", optimizers=("SGD",)),
        Need(
            "momentum that is not Nesterov's, and minimisation", ~pl.col("nesterov").any() & ~pl.col("maximize").any()
        ),
        Need("momentum above 0 and below 1, constant", always((_b > 0) & (_b < 1) & (_b == _first["momentum"]))),
        Need("a constant learning rate above 0", always((lr > 0) & (lr == _first["lr"]))),
        Need("no dampening and no weight decay", always((pl.col("dampening") == 0) & (pl.col("weight_decay") == 0))),
        Need("gradients that are not clipped", always((pl.col("clip") == 1) & pl.col("clip_value").is_null())),
        Need("steps without a random factor", always(pl.col("random_scale").fill_null(1.0) == 1)),
        Need("traces that begin with the first update", pl.col("begins").first()),
    ),
    lines=(
        Line(
            name="energy of the virtual iterate",
            left=_z_ahead,
            right=_z - 2 * _eta * (ge + _beta * _gd) + _eta**2 * g_g,
            relation="=",
            uses="the optimizer",
            says="Z = x + b/(1−b) d moves by −lr/(1−b) g, so that ‖Z⁺ − u‖² follows from ⟨g, Z − u⟩ and ‖g‖²",
            tolerance=_tolerance,
        ),
        Line(
            name="sum of the energies",
            left=ge.sum(),
            right=_scale * (_z.first() - _z_ahead.last()) + _energy - _carried,
            relation="=",
            over="run",
            uses="algebra",
            says="Σ⟨g, x − u⟩ = (‖Z_0−u‖² − ‖Z_T−u‖²)(1−b)/(2 lr) + lr/(2(1−b)) Σ‖g‖² − b/(1−b) Σ⟨g_t, d_t⟩",
            tolerance=_scale * _tolerance.sum(),
        ),
        Line(
            name="drop the last distance",
            left=ge.sum(),
            right=_scale * ee.first() + _energy - _carried,
            over="run",
            uses="algebra",
            says="‖Z_T − u‖² is not negative, and Z_0 = x_0",
            tolerance=_scale * _tolerance.sum(),
        ),
        CONVEXITY,
    ),
    bounds=(
        Line(
            name="average loss above F(u)",
            left=MEAN_GAP,
            right=(_scale * ee.first() + _energy - _carried) / pl.len(),
            over="run",
            uses="all lines",
            says="mean F(x_t) − F(u) ≤ D²(1−b)/(2 lr T) + lr/(2(1−b)) mean ‖g‖² − b/(1−b) mean ⟨g_t, d_t⟩",
            tolerance=MEAN_GAP_ROUNDING,
        ),
    ),
    caveat="The update correlation Σ⟨g_t, d_t⟩ enters with a minus sign: where it is positive, it tightens the bound.",
)
