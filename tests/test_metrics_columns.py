"""Laws of every metric on rows that hold every column there is: units, what is missing, words, runs that went wrong."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from numpy.testing import assert_allclose

from analysis.columns import COLUMNS, REFINING, Units
from analysis.measure import measure, measure_all
from analysis.metric import Metric
from analysis.registry import metrics
from tests.problems import convex_problems, quadratic
from tests.recorded_walks import Walk, rows_of, tables_of, walk

METRICS = list(metrics().values())
every_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
LOSS, DISTANCE = 3.0, 0.25
EXPONENTS = [e / 2 for e in range(-12, 13)]
FIXED = {"wcount": 100.0, "scale_least": 0.5, "scale_most": 3.0, "epoch": 1.0}  # what formulas choose rows by
STAND_INS = {
    **{name: {"dg_d", "gx_gx"} for name in ("strong_convexity", "weak_convexity")},
    **{name: {"d_d", "dg_d", "gx_gx"} for name in ("severity", "violation_mass")},
    **{name: {"gx_gx"} for name in ("polyak_lojasiewicz_to_reference", "quasar", "unified_parametric")},
    "error_bound": {"ga_gb", "gx_gx"},
}  # what a value reads only to choose between two formulas, so that the other is there without it
HYPERPARAMETERS = {"momentum": 0.5, "dampening": 0.0, "betas.0": 0.5, "weight_decay": 0.0}


def every_column(metric: Metric, loss: float = 1.0, distance: float = 1.0, n: int = 40) -> dict[str, np.ndarray]:
    """Random rows of every column, scaled."""
    random = np.random.default_rng(1)
    columns = {name: np.abs(random.normal(size=n)) + 0.1 for name in COLUMNS} | FIXED
    columns["loss_x"] += columns["loss_y"]  # some formulas are about steps above the reference
    for half in ("ga_ga", "gb_gb"):  # of two halves that there can be
        columns[half] = columns[half] + columns["ga_gb"]
    adam_rates = {"qq_adam", "adam_sharpness_full"}
    adam = dict.fromkeys(("lr", "lr_previous", "lr_d"), Units(distance=1)) if adam_rates & set(metric.columns) else {}
    units = {name: column.units for name, column in COLUMNS.items()} | adam  # Adam's rate is a length of steps
    columns = {name: of * units[name].factor(loss, distance) for name, of in columns.items()} | HYPERPARAMETERS
    return {name: np.broadcast_to(of, n) for name, of in columns.items()}


def table_of(metric: Metric, columns: dict[str, np.ndarray]) -> pl.DataFrame:
    """The metric's table on these rows."""
    pairing = metric.pairings[0] + ":last" * (metric.pairings[0] == "reference")
    return measure(replace(metric, claims=()), rows_of(columns, pairing)).table


def given(metric: Metric, loss: float = 1.0, distance: float = 1.0) -> pl.DataFrame:
    """Random rows, scaled, with the metric's table beside them."""
    columns = every_column(metric, loss, distance)
    return table_of(metric, columns).with_columns(pl.Series(name, of) for name, of in columns.items())


def unit_of(part: pl.Expr, one: pl.DataFrame, other: pl.DataFrame) -> Units | None:
    """Exponents by which ``part`` grew, the same in every row; None where it has no value at all."""
    a, b = (frame.select(part).to_series().to_numpy() for frame in (one, other))
    there = np.isfinite(a) & (a != 0)
    if not there.any():
        return None
    factors = b[there] / a[there]
    assert_allclose(factors, factors[0], rtol=1e-9)
    units = [Units(p, q) for p in EXPONENTS for q in EXPONENTS]
    (found,) = (u for u in units if np.isclose(u.factor(LOSS, DISTANCE), factors[0], rtol=1e-9))
    return found


@every_metric
def test_value_variants_and_tolerance_have_the_metrics_unit(metric):
    one, other = given(metric), given(metric, LOSS, DISTANCE)
    assert one["value"].is_not_null().all()
    for name in ("value", "tolerance", *(v.name for v in metric.variants)):
        assert_allclose(other[name], one[name] * metric.units.factor(LOSS, DISTANCE), rtol=1e-9)


@every_metric
def test_a_claims_quantity_is_in_one_unit_and_its_tolerance_margin_and_biases_too(metric):
    one, other = given(metric), given(metric, LOSS, DISTANCE)
    for claim in metric.claims:
        quantity = pl.col("value") if claim.quantity is None else claim.quantity
        tolerance = pl.col("tolerance") if claim.tolerance is None else claim.tolerance
        unit = unit_of(quantity, one, other)
        if unit is None:  # the claim is about other rows
            continue
        parts = [tolerance, claim.margin, *(bias.amount for bias in claim.biases if claim.over != "ratio")]
        for part in parts:
            if part is not None:
                assert unit_of(part, one, other) in (unit, None), f"{claim.name}: {part}"
        if claim.over not in ("ratio", "share", "envelope") and claim.bound:
            assert unit == Units(), f"{claim.name}: {claim.bound:g} is no bound for what is in {unit}"


@every_metric
def test_a_ratio_is_a_pure_number_where_its_bound_is_one(metric):
    one, other = given(metric), given(metric, LOSS, DISTANCE)
    for claim in metric.claims:
        if claim.bound and claim.numerator is not None and claim.denominator is not None:
            units = {unit_of(part, one, other) for part in (claim.numerator, claim.denominator)}
            assert len(units - {None}) == 1


@every_metric
def test_a_row_does_not_depend_on_the_others(metric):
    columns = every_column(metric)
    turned = table_of(metric, {name: of[::-1] for name, of in columns.items()})
    assert_allclose(turned["value"].reverse(), table_of(metric, columns)["value"])


@every_metric
@pytest.mark.parametrize("bad", [None, np.nan], ids=["missing", "undefined"])
def test_what_is_missing_stays_missing_and_what_is_no_number_stays_none(metric, bad):
    columns, at = every_column(metric), 17
    whole = table_of(metric, columns)
    series = [s.name for s in metric.series if s.role != "limit"]
    optional = STAND_INS.get(metric.name, set()) | {*FIXED, *REFINING, "u_loss", "u_vector", "pairing", "step"}
    for name in set(metric.columns) - optional:
        spoiled = [bad if i == at else v for i, v in enumerate(columns[name].tolist())]
        table = table_of(metric, {**columns, name: spoiled})
        found = table["value"][at]
        assert found is None if bad is None else found is None or np.isnan(found)
        assert table["value"].drop_nulls().drop_nans().len() == len(whole) - 1
        assert [table[of][at] for of in series] == [None] * len(series)
        assert all(table[of][at + 1] is not None and np.isfinite(table[of][at + 1]) for of in series)


@every_metric
def test_claims_say_objective_quantifier_and_norm_and_what_they_do_not_refute(metric):
    for claim in metric.claims:
        assert "recorded step" in claim.says or "half of the run" in claim.says
        assert "norm" in claim.says
        assert "minibatch" in claim.says or "opulation" in claim.says
        assert "not" in claim.caveat
    assert metric.claims or any("Descriptive" in caveat for caveat in metric.caveats)


def diverging() -> Walk:
    with np.errstate(all="ignore"):
        return walk(quadratic(np.diag([100.0, 1.0]), np.ones(2)), 0.5, 250, scale=lambda r: r.exponential())


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_short_runs_raise_nothing_and_pass_nothing(steps):
    problem = quadratic(np.eye(2), np.ones(2), 0.1)
    for measured in measure_all(METRICS, tables_of(walk(problem, 0.1, steps))).values():
        assert set(measured.verdicts["status"]) <= {"INCONCLUSIVE", "NOT APPLICABLE", "FAILS"}
        assert (measured.verdicts["reason"].str.len_chars() > 0).all()


def test_a_run_that_diverged_raises_nothing_and_passes_nothing():
    with np.errstate(all="ignore"):
        given = tables_of(diverging())
    for measured in measure_all(METRICS, given).values():
        assert "HOLDS" not in set(measured.verdicts["status"])


CONVEX = {name: (problem, lr) for name, problem, lr in convex_problems()}


@pytest.mark.parametrize("problem", CONVEX)
def test_claims_of_convexity_hold_on_convex_problems(problem):
    loss, lr = CONVEX[problem]
    convex = [m for m in METRICS if any(c.name.startswith("convex") for c in m.claims)]
    for name, measured in measure_all(convex, tables_of(walk(loss, lr, 1200), ("previous",))).items():
        found = measured.verdicts.filter(pl.col("claim").str.starts_with("convex"))["status"]
        assert set(found) <= {"HOLDS", "NOT APPLICABLE"}, name
