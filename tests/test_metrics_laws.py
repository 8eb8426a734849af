"""Laws that every metric of the registry must keep."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from numpy.testing import assert_allclose

from analysis.columns import COLUMNS, REPLAY
from analysis.measure import VERDICT_SCHEMA, measure, measure_all
from analysis.metric import Claim, Metric, Variant
from analysis.registry import metrics
from analysis.series import cumulative
from tests.problems import descend, logistic, quadratic, saddle
from tests.recorded_walks import tables_of, walk
from tests.tables_by_hand import tables

METRICS = list(metrics().values())
every_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
OF_OPTIMIZERS = {"momentum", "nesterov", "dampening", "weight_decay", "betas.0", "betas.1", "eps"}


@every_metric
def test_reads_only_known_columns(metric):
    assert set(metric.all_columns) <= {*COLUMNS, *OF_OPTIMIZERS, "pairing", "step"}


@pytest.fixture(scope="module")
def measured():
    """Every metric on one run, with a probe and without, with losses and without."""
    run = descend(logistic(1), 0.3, 150)
    given = {(probe, loss): tables(run, probe, loss, blocks=2) for probe in (True, False) for loss in (True, False)}
    return {key: measure_all(METRICS, each) for key, each in given.items()}


def test_verdicts_have_every_column_and_fingerprint(measured):
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
    for of in measured.values():
        for metric in METRICS:
            verdicts = of[metric.name].verdicts
            assert verdicts.schema == VERDICT_SCHEMA
            assert set(verdicts["fingerprint"]) == {metric.fingerprint}
            assert verdicts.select(needed).null_count().sum_horizontal().item() == 0
            assert len(verdicts) >= len(metric.claims)
            assert (verdicts["reason"].str.len_chars() > 0).all()


def test_what_reads_a_loss_is_not_applicable_without_one(measured):
    for metric in METRICS:
        if {"loss_x", "loss_y"} <= set(metric.columns):
            of_value = [c.name for c in metric.claims if c.quantity is None and c.over not in ("ratio", "envelope")]
            verdicts = measured[True, False][metric.name].verdicts.filter(pl.col("claim").is_in(of_value))
            assert set(verdicts["status"]) <= {"NOT APPLICABLE"}, metric.name


@pytest.mark.parametrize(
    ("over", "problem", "lr"),
    [
        ("every step", saddle(3.0), 0.01),
        ("on average", quadratic(-np.eye(4), np.zeros(4), noise=3.0), 0.002),
    ],
)
def test_claims_of_convexity_fail_on_the_saddle(over, problem, lr):
    recorded = [m for m in METRICS if not set(REPLAY) & set(m.value.meta.root_names())]
    claimed = [(m, c) for m in recorded for c in m.claims if c.name.startswith("convex") and c.over == over]
    assert claimed
    found = measure_all({m.name: m for m, _ in claimed}.values(), tables_of(walk(problem, lr, 600)))
    for metric, claim in claimed:
        statuses = set(found[metric.name].verdicts.filter(claim=claim.name)["status"])
        assert statuses - {"NOT APPLICABLE"} == {"FAILS"}, f"{metric.name}: {claim.name}"


@every_metric
def test_fingerprint_is_of_the_formula_the_claims_and_the_tolerance(metric):
    assert replace(metric).fingerprint == metric.fingerprint
    assert replace(metric, title="other words", caveats=("another",)).fingerprint == metric.fingerprint
    others = [
        replace(metric, value=metric.value * 2),
        replace(metric, tolerance=metric.tolerance * 2),
        replace(metric, series=(*metric.series, cumulative("one_more"))),
        replace(metric, variants=(*metric.variants, Variant("one_more", "another", metric.value))),
        replace(metric, claims=(*metric.claims, Claim(at_most=1, name="another"))),
        replace(metric, pairings=(*metric.pairings, "unpaired")),
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
