"""Laws that every metric of the registry must keep."""

import numpy as np
import polars as pl
import pytest
from numpy.testing import assert_allclose

from analysis.columns import COLUMNS, GEOMETRY, LOSSES
from analysis.measure import VERDICT_SCHEMA, measure
from analysis.metric import Claim, Metric
from analysis.registry import metrics
from analysis.tables import Tables
from tests.problems import convex_problems, descend, logistic, quadratic, saddle
from tests.tables_by_hand import geometry_tables, tables

METRICS = list(metrics().values())
every_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
CONVEX = {name: (problem, lr) for name, problem, lr in convex_problems()}
CONVEXITY = [(m, c) for m in METRICS for c in m.claims if c.name.startswith("convex")]


def random_rows(n=200, seed=0):
    random = np.random.default_rng(seed)
    return {name: np.abs(random.normal(size=n)) + 0.1 for name in GEOMETRY}


def with_geometry(given: Tables, **columns) -> Tables:
    return Tables(given.geometry.with_columns(**columns), given.path, given.steps, given.facts)


@every_metric
def test_value_and_tolerance_scale_with_the_units(metric):
    loss, distance = 3.0, 0.25
    rows = random_rows()
    scaled = {name: column * COLUMNS[name].units.factor(loss, distance) for name, column in rows.items()}
    one, other = (measure(metric, geometry_tables(r)).table for r in (rows, scaled))
    for name in ("value", "tolerance"):
        assert_allclose(other[name], one[name] * metric.units.factor(loss, distance), rtol=1e-12)


@every_metric
def test_reads_only_known_columns(metric):
    assert set(metric.columns) <= set(GEOMETRY)
    hyperparameters = {"momentum", "weight_decay"}
    assert set(metric.all_columns) <= {*COLUMNS, *hyperparameters}


@every_metric
def test_value_of_a_pair_depends_on_that_pair_alone(metric):
    rows = random_rows(50)
    turned = {name: column[::-1] for name, column in rows.items()}
    one, other = (measure(metric, geometry_tables(r)).table["value"] for r in (rows, turned))
    assert_allclose(other.reverse(), one)


@every_metric
def test_every_claim_says_objective_quantifier_and_what_it_does_not_refute(metric):
    assert metric.claims
    for claim in metric.claims:
        assert "recorded step" in claim.says or "half of the run" in claim.says
        assert "norm" in claim.says
        assert "minibatch" in claim.says or "opulation" in claim.says
        assert "not" in claim.caveat


@every_metric
def test_verdicts_have_every_column_and_fingerprint(metric):
    verdicts = measure(metric, tables(descend(logistic(1), 0.3, 50))).verdicts
    assert verdicts.schema == VERDICT_SCHEMA
    assert set(verdicts["fingerprint"]) == {metric.fingerprint}
    needed = (
        "run_id",
        "metric",
        "claim",
        "rule",
        "status",
        "reason",
        "pairing",
        "reference",
        "window",
        "block",
        "says",
    )
    assert verdicts.select(needed).null_count().sum_horizontal().item() == 0
    assert verdicts["window"].unique().to_list() == ["steps 1 to 49"]


@every_metric
@pytest.mark.parametrize("bad", [None, float("nan"), 0.0], ids=["missing", "undefined", "zero"])
def test_missing_undefined_and_zero_are_three_answers(metric, bad):
    rows = random_rows()
    spoiled = metric.columns[0]
    at = 77
    given = geometry_tables({**rows, spoiled: [bad if i == at else v for i, v in enumerate(rows[spoiled].tolist())]})
    verdict = measure(metric, given).verdicts.row(0, named=True)
    undefined = bad is not None and (np.isnan(bad) or spoiled == "d_d")
    expected = (199, 0, 1) if bad is None else (199, 1, 0) if undefined else (200, 0, 0)
    assert (verdict["pairs"], verdict["undefined"], verdict["missing"]) == expected


@every_metric
@pytest.mark.parametrize("bad", [None, float("nan"), float("inf")], ids=["missing", "undefined", "infinite"])
def test_series_pass_over_what_is_no_number(metric, bad):
    rows = random_rows()
    at = 77
    spoiled = metric.columns[-1]
    whole = {name: np.delete(column, at) for name, column in rows.items()}
    holed = {**rows, spoiled: [bad if i == at else v for i, v in enumerate(rows[spoiled].tolist())]}
    names = [s.name for s in metric.series if s.role != "limit"]
    assert names
    without = measure(metric, geometry_tables(whole)).table
    table = measure(metric, geometry_tables(holed)).table
    for name in names:
        assert table[name][at] is None
        kept = pl.concat([table[name][:at], table[name][at + 1 :]])
        assert_allclose(kept.to_numpy(), without[name].to_numpy(), rtol=1e-12)


@every_metric
@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("losses", [True, False])
@pytest.mark.parametrize("look_back", [True, False])
def test_short_runs_raise_nothing_and_pass_nothing(metric, steps, losses, look_back):
    measured = measure(metric, tables(descend(logistic(1), 0.3, steps), look_back, losses, blocks=2))
    assert len(measured.verdicts) >= len(metric.claims)
    assert set(measured.verdicts["status"]) <= {"INCONCLUSIVE", "NOT APPLICABLE", "FAILS"}
    assert (measured.verdicts["reason"].str.len_chars() > 0).all()


@every_metric
def test_a_run_that_diverged_raises_nothing_and_passes_nothing(metric):
    with np.errstate(all="ignore"):
        run = descend(quadratic(np.diag([100.0, 1.0]), np.ones(2)), 0.5, 250)
        given = tables(run)
    verdicts = measure(metric, given).verdicts
    assert "HOLDS" not in set(verdicts["status"])
    assert (verdicts["undefined"] > 100).all()
    assert verdicts["estimate"].is_not_null().all()


@every_metric
def test_a_run_without_losses_is_not_applicable_exactly_where_a_loss_is_read(metric):
    verdicts = measure(metric, tables(descend(logistic(1), 0.3, 150), losses=False)).verdicts
    no_loss = verdicts.filter(pl.col("reason").str.contains("no loss was recorded"))
    assert len(no_loss) == (len(verdicts) if set(metric.columns) & LOSSES else 0)


@pytest.mark.parametrize("problem", CONVEX)
@pytest.mark.parametrize("claim", CONVEXITY, ids=lambda mc: mc[1].name)
def test_claims_of_convexity_hold_on_convex_problems(claim, problem):
    metric, wanted = claim
    loss, lr = CONVEX[problem]
    verdicts = measure(metric, tables(descend(loss, lr, 1200))).verdicts
    assert verdicts.filter(claim=wanted.name)["status"].to_list() == ["HOLDS"]


@pytest.mark.parametrize("claim", CONVEXITY, ids=lambda mc: mc[1].name)
def test_claims_of_convexity_fail_on_the_saddle(claim):
    metric, wanted = claim
    verdicts = measure(metric, tables(descend(saddle(3.0), 0.01, 600))).verdicts
    on_average = descend(quadratic(-np.eye(4), np.zeros(4), noise=3.0), 0.002, 600)
    if wanted.over == "on average":
        verdicts = measure(metric, tables(on_average)).verdicts
    assert verdicts.filter(claim=wanted.name)["status"].to_list() == ["FAILS"]


@every_metric
def test_fingerprint_is_of_the_formula_the_claims_and_the_tolerance(metric):
    def variant(**changed):
        names = ("name", "units", "value", "title", "pairings", "series", "tolerance", "claims", "caveats")
        return Metric(**{**{n: getattr(metric, n) for n in names}, **changed})

    assert variant().fingerprint == metric.fingerprint
    assert variant(title="other words", caveats=("another",)).fingerprint == metric.fingerprint
    others = [
        variant(value=metric.value * 2),
        variant(tolerance=metric.tolerance * 2),
        variant(series=metric.series[1:]),
        variant(claims=metric.claims[1:]),
        variant(claims=(*metric.claims, Claim(at_most=1, name="another"))),
        variant(pairings=("next",)),
    ]
    assert len({m.fingerprint for m in [metric, *others]}) == 1 + len(others)


def test_an_unknown_column_is_not_applicable_and_the_reason_lists_what_there_is():
    metric = Metric(name="mine", units=metrics()["smoothness"].units, value=pl.col("betas.7"), claim=Claim(at_most=0))
    verdict = measure(metric, tables(descend(logistic(1), 0.3, 50))).verdicts.row(0, named=True)
    assert verdict["status"] == "NOT APPLICABLE"
    assert "no such column" in verdict["reason"]
    assert "gx_d" in verdict["reason"]


def test_a_metric_without_a_claim_is_described_and_not_judged():
    metric = Metric(name="mine", units=metrics()["smoothness"].units, value=pl.col("gx_gx") + 0 * pl.col("x_x"))
    measured = measure(metric, tables(descend(logistic(1), 0.3, 50)))
    verdict = measured.verdicts.row(0, named=True)
    assert (verdict["status"], verdict["pairs"]) == ("NOT APPLICABLE", 49)
    assert verdict["estimate"] == pytest.approx(
        measured.table.filter(pl.col("block").cast(str) == "model")["value"].mean()
    )


def test_hyperparameters_and_the_path_may_be_read():
    value = pl.col("momentum") * pl.col("lr") * pl.col("step") + 0 * pl.col("x_d")
    metric = Metric(name="mine", units=metrics()["smoothness"].units, value=value)
    table = measure(metric, tables(descend(logistic(1), 0.3, 4), hyperparameters={"momentum": 0.5})).table
    assert_allclose(table.filter(pl.col("block").cast(str) == "model")["value"], 0.15 * np.array([1, 2, 3]))
