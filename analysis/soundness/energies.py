"""Identities of the optimizers' energy: how far an update moves from a point, from the numbers of the tables alone.

With e = x_t − u, d the incoming and d⁺ the outgoing step, every reference point u gives

* polarisation: ‖e⁺‖² = ‖e‖² + 2⟨e, d⁺⟩ + ‖d⁺‖² (any optimizer);
* SGD, with momentum b, β = b/(1−b): the virtual iterate Z = x + β D moves by δ = −lr κ/(1−b) g + β(lr/lr⁻ − 1) D. Here
  D = d; with Nesterov's momentum D = d + lr⁻ g⁻; κ = 1 − dampening, and 1 in torch's first update. Without momentum
  Z = x; dampening b is momentum as an average. So ‖Z⁺ − u‖² = ‖Z − u‖² + 2⟨δ, Z − u⟩ + ‖δ‖², all of it from products
  with u, d and g.
* Adam: 2 lr (⟨m̂, e⟩ + λ⟨Dx, e⟩) = ‖e‖²_D − ‖e⁺‖²_D + ‖d⁺‖²_D.

They take the optimizer's update as it was: what it slipped from the formula (:mod:`analysis.vectors.dynamics`) is
allowed for, so that a failure says that the *tables* do not fit together. Whether the update is the formula's is
another check.
"""

import polars as pl

from analysis.optimizers import KINDS, SGD
from analysis.rounding import roundoff
from analysis.soundness.beginning import begins
from analysis.soundness.identities import Identity, Part
from analysis.tables import MODEL, REFERENCE, Facts, Tables

_c = pl.col
_PATH = ("x_x", "g_x", "x_d", "g_gprev", "step_step", "slip_slip", "slip_room", "gmove", "m_m")
_ADAM = ("mhat_e", "decay_e", "ee_adam", "ee_ahead", "slip_e", "dd_adam")
_STEPS = ("lr", "momentum", "dampening", "weight_decay", "clip_factor", "clip_value", "random_scale", "epoch")
_SHIFTED = ("lr", "momentum", "clip", "step_step", "slip_slip", "gn", "gg", "gmove", "still")
_OF_PAIR = ("ee", "ea", "ge")


def before(name: str) -> pl.Expr:
    """The column one step earlier; null after a gap."""
    return _c(f"{name} before")


def _only(pairing: str, term: pl.Expr) -> pl.Expr:
    return pl.when(_c("pairing") == pairing).then(term)


# --- what the identities say ----------------------------------------------------------------------------------------

POLARISATION = Identity(
    "polarisation of references",
    "‖x_{t+1} − u‖² = ‖x_t − u‖² + 2⟨x_t − u, x_{t+1} − x_t⟩ + ‖x_{t+1} − x_t‖² for each reference point u",
    (
        Part(
            (_c("ee ahead") - (_c("ee") + 2 * _c("ea") + _c("step_step"))).abs(),
            _c("ee ahead") + _c("ee") + 2 * (_c("ee") * _c("step_step")).sqrt() + _c("step_step"),
        ),
        Part(  # Cauchy-Schwarz; the kernel knows x_t − u as x_{t+1} − u less the step, however long that is
            _c("ea").abs() - _c("ee").sqrt() * _c("step_step").sqrt(),
            _c("ee").sqrt() * _c("step_step").sqrt() + _c("step_step"),
            label="d_ahead",
        ),
    ),
)
BOOKKEEPING = Identity(
    "sum of slopes from the first point",
    "Σ_{s≤t} ⟨g_s, x_s − x_0⟩ grows by ⟨g_t, x_t − x_0⟩ at every step",
    (
        Part(
            # x_0 is another point after a gap
            pl.when(_c("stretch") == 1).then(
                (_c("gmove") - before("gmove") - _only(f"{REFERENCE}initial", _c("ge"))).abs()
            ),
            _c("gmove").abs() + before("gmove").abs() + (_c("gg") * _c("ee")).sqrt(),
        ),
    ),
)
ENERGY = (
    "energy of the update",
    "how far an update moves from a reference point follows from its gradient and its momentum (SGD: the virtual "
    "iterate; Adam: in the metric √v̂ + ε)",
)


def energy(facts: Facts) -> Identity:
    """The identity :data:`ENERGY` with the parts that apply to the run's optimizer."""
    kind = KINDS.get(facts.optimizer_class)
    mixed = any(flag.endswith("in some groups") for flag in facts.optimizer_flags)
    if kind is None or mixed:
        return Identity(*ENERGY, ())
    if kind == SGD:
        nesterov = "nesterov" in facts.optimizer_flags
        return Identity(*ENERGY, (_virtual_iterate(nesterov), *([] if nesterov else [_length_of_the_step()])))
    return Identity(*ENERGY, (_adam(),))


# --- SGD ------------------------------------------------------------------------------------------------------------

# torch's first update begins the momentum; without momentum every update does
_begun = (_c("begins") & _c("slip_slip").is_not_null()) | (_c("momentum") == 0)
_beta = _c("momentum") / (1 - _c("momentum"))
_ratio = pl.when(_begun).then(1.0).otherwise(_c("lr") / before("lr"))
_kappa = pl.when(_begun).then(1.0).otherwise(1 - _c("dampening"))
_as_it_was = (
    _c("clip_value").is_null()
    & (_c("random_scale").fill_null(1.0) == 1)
    & ~_c("still")
    & ~(before("still").fill_null(False))
    & (_c("momentum") < 1)
)


def _momentum(term: pl.Expr) -> pl.Expr:
    """A product with D, which is zero where the momentum begins."""
    return pl.when(_begun).then(0.0).otherwise(term)


def _virtual_iterate(nesterov: bool) -> Part:
    nu = _c("lr") * _c("clip") if nesterov else pl.lit(0.0)
    nu_before = before("lr") * before("clip") if nesterov else pl.lit(0.0)
    ee, ea, ge, gg, dd = _c("ee"), _c("ea"), _c("ge"), _c("gg"), _c("step_step")
    e_D = _momentum(before("ea") + before("step_step") + nu_before * (before("ge") + before("gn")))
    D_D = _momentum(before("step_step") + 2 * nu_before * before("gn") + nu_before**2 * before("gg"))
    g_D = _momentum(_c("gd") + nu_before * _c("g_gprev"))
    e_D_next = ea + dd + nu * (ge + _c("gn"))
    D_D_next = dd + 2 * nu * _c("gn") + nu**2 * gg
    left = ee + 2 * ea + dd + 2 * _beta * e_D_next + _beta**2 * D_D_next
    rate, drift = _c("lr") * _kappa * _c("clip") / (1 - _c("momentum")), _beta * (_ratio - 1)
    right = (ee + 2 * _beta * e_D + _beta**2 * D_D) - 2 * rate * (ge + _beta * g_D) + 2 * drift * (e_D + _beta * D_D)
    right += rate**2 * gg - 2 * rate * drift * g_D + drift**2 * D_D
    incoming = _momentum(before("step_step").sqrt() + nu_before.abs() * before("gg").sqrt())
    outgoing = dd.sqrt() + nu.abs() * gg.sqrt()
    reach = ee.sqrt() + dd.sqrt() + _beta * (outgoing + incoming) + rate.abs() * gg.sqrt() + drift.abs() * incoming
    slip = (1 + _beta) * _slips()
    applies = _as_it_was & (_c("weight_decay") == 0)
    if nesterov:  # D holds b of the step before
        applies &= _begun | (_c("momentum") == before("momentum"))
    return Part(
        pl.when(applies).then((left - right).abs()),
        reach**2,
        allowance=2 * left.abs().sqrt() * slip + slip**2,
        label="virtual iterate",
    )


def _length_of_the_step() -> Part:
    """‖d⁺‖² of d⁺ = (lr/lr⁻) b d − lr κ (g + λ x): with coupled weight decay, and without any reference point."""
    rate, decay, clip = _c("lr") * _kappa, _c("weight_decay"), _c("clip")
    kept = _momentum(_ratio * _c("momentum"))
    gd, xd, dd = _momentum(_c("gd")), _momentum(_c("x_d")), _momentum(before("step_step"))
    u_u = clip**2 * _c("gg") + 2 * clip * decay * _c("g_x") + decay**2 * _c("x_x")
    right = kept**2 * dd - 2 * kept * rate * (clip * gd + decay * xd) + rate**2 * u_u
    reach = kept * dd.sqrt() + rate * (clip.abs() * _c("gg").sqrt() + decay * _c("x_x").sqrt())
    return Part(
        _only(f"{REFERENCE}last", pl.when(_as_it_was).then((_c("step_step") - right).abs())),
        reach**2,
        allowance=2 * _c("step_step").sqrt() * _slips() + _slips() ** 2,
        label="length of the step",
    )


def _slips() -> pl.Expr:
    """How far d⁺ may be from what the momentum form gives: the slip of the update, and that of the one before in d.

    Of a recorded buffer the slips know nothing: it was rounded when training updated it, and that is in the room.
    """
    earlier = _momentum((_ratio * _c("momentum")).abs() * before("slip_slip").sqrt())
    return _c("slip_slip").sqrt() + earlier + _momentum(_c("slip_room").sqrt().fill_null(0.0))


# --- Adam -----------------------------------------------------------------------------------------------------------


def _adam() -> Part:
    left = 2 * _c("lr") * (_c("mhat_e") + _c("decay_e"))
    right = _c("ee_adam") - _c("ee_ahead") + _c("dd_adam ahead") + 2 * _c("slip_e")
    applies = _c("random_scale").fill_null(1.0) == 1
    return Part(
        _only(f"{REFERENCE}last", pl.when(applies).then((left - right).abs())),
        (_c("ee_adam").sqrt() + _c("ee_ahead").sqrt() + _c("dd_adam ahead").sqrt()) ** 2 + left.abs(),
        label="Adam's metric",
    )


# --- the rows they are tested on ------------------------------------------------------------------------------------


def rows(tables: Tables) -> pl.LazyFrame:
    """One row per reference pairing and step, of the model, with the columns that the formulas above read.

    "before" and "ahead" are the same columns of the steps before and after; null across gaps.
    """
    pairs = _model(tables.geometry).filter(_c("pairing").str.starts_with(REFERENCE))
    names = {"ee": "d_d", "ea": "d_ahead", "ge": "gx_d", "gg": "gx_gx"}
    found = (
        pairs.select("pairing", "step", "block", **{k: _of(pairs, name) for k, name in names.items()})
        .sort("pairing", "step", maintain_order=True)
        .join(_steps(tables), on="step", how="left", maintain_order="left")
    )
    # this reference point is another one in each epoch
    moves = _c("pairing") == f"{REFERENCE}epoch_last"
    alike = {n: ~moves | (_c("epoch") == _c("epoch").shift(n)).fill_null(False) for n in (1, -1)}
    same = {n: (_c("pairing").shift(n) == _c("pairing")) & (_c("step").shift(n) == _c("step") - n) for n in (1, -1)}
    joined = {1: same[1] & _c("follows"), -1: same[-1] & _c("follows").shift(-1)}
    return found.with_columns(
        *(pl.when(joined[1] & alike[1]).then(_c(name).shift(1)).alias(f"{name} before") for name in _OF_PAIR),
        pl.when(joined[-1] & alike[-1]).then(_c("ee").shift(-1)).alias("ee ahead"),
    )


def _steps(tables: Tables) -> pl.LazyFrame:
    """One row per step: the model's path, its pairs with the neighbours, the optimizer's settings."""
    path, pairs = _model(tables.path), _model(tables.geometry)
    settings, flags = tables.steps, tables.facts.optimizer_flags
    previous = pairs.filter(_c("pairing") == "previous").select("step", gd=_of(pairs, "gx_d"))
    following = pairs.filter(_c("pairing") == "next").select("step", gn=_of(pairs, "gy_d"))
    found = (
        settings.select("step", *(_of(settings, name).alias(name) for name in _STEPS))
        .join(path.select("step", *(_of(path, n).alias(n) for n in (*_PATH, *_ADAM))), on="step", how="inner")
        .join(previous, on="step", how="left")
        .join(following, on="step", how="left")
        .join(_gradients(pairs), on="step", how="left")
        .join(_still(tables.path), on="step", how="left")
        .sort("step")
    )
    sign = -1.0 if "maximize" in flags else 1.0
    found = found.with_columns(
        _c("still").fill_null(False),
        # steps may be numbered on across two attempts, which nothing joins
        follows=_c("gd").is_not_null() & (_c("step").diff() == 1).fill_null(False),
        clip=sign * _c("clip_factor").cast(pl.Float64).fill_null(1.0),
    )
    first = settings.select(_c("step").min()).collect().item()
    return found.with_columns(
        *(pl.when("follows").then(_c(name).shift(1)).alias(f"{name} before") for name in _SHIFTED),
        pl.when(_c("follows").shift(-1)).then(_c("dd_adam").shift(-1)).alias("dd_adam ahead"),
        stretch=(~_c("follows")).cum_sum(),
        begins=begins(first, g_g=_c("gg"), unit=roundoff(tables.facts.dtype)),
    )


def _gradients(pairs: pl.LazyFrame) -> pl.LazyFrame:
    """‖g_t‖² of each step, from whichever pair has it."""
    return pairs.filter(_c("pairing") != "next").group_by("step").agg(_c("gx_gx").first().alias("gg"))


def _still(path: pl.LazyFrame) -> pl.LazyFrame:
    """Steps in which a block stood still: perhaps it was left out of the update, and its momentum was not."""
    there = path if "step_step" in path.collect_schema() else path.with_columns(step_step=pl.lit(None, pl.Float64))
    return there.filter(_c("step_step") == 0).select("step").unique().with_columns(still=pl.lit(True))


def _model(table: pl.LazyFrame) -> pl.LazyFrame:
    only = table.filter(_c("block").cast(pl.String) == MODEL).with_columns(_c("block").cast(pl.String))
    return only.with_columns(_c("pairing").cast(pl.String)) if "pairing" in table.collect_schema() else only


def _of(table: pl.LazyFrame, name: str) -> pl.Expr:
    """The column, or null where the table has none of that name."""
    return _c(name) if name in table.collect_schema() else pl.lit(None, pl.Float64)
