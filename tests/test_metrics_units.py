"""Units: what a metric and its claims give scales with the loss and with distances as the units say."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from numpy.testing import assert_allclose

from analysis.columns import COLUMNS, Units
from analysis.measure import measure
from analysis.metric import Metric
from analysis.registry import metrics
from tests.recorded_walks import rows_of

METRICS = list(metrics().values())
every_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
LOSS, DISTANCE = 3.0, 0.25
EXPONENTS = [e / 2 for e in range(-12, 13)]
FIXED = {"wcount": 100.0, "scale_least": 0.5, "scale_most": 3.0, "epoch": 1.0}  # what formulas choose rows by
HYPERPARAMETERS = {"momentum": 0.5, "betas.0": 0.5, "weight_decay": 0.0}


def given(metric: Metric, loss: float = 1.0, distance: float = 1.0, n: int = 40) -> pl.DataFrame:
    """Random rows of every column, scaled, with the metric's value and tolerance."""
    random = np.random.default_rng(1)
    columns = {name: np.abs(random.normal(size=n)) + 0.1 for name in COLUMNS} | FIXED
    adam = dict.fromkeys(("lr", "lr_previous", "lr_d"), Units(distance=1)) if "qq_adam" in metric.columns else {}
    units = {name: column.units for name, column in COLUMNS.items()} | adam  # Adam's rate is a length of steps
    columns = {name: of * units[name].factor(loss, distance) for name, of in columns.items()} | HYPERPARAMETERS
    columns = {name: np.broadcast_to(of, n) for name, of in columns.items()}
    pairing = metric.pairings[0] + ":last" * (metric.pairings[0] == "reference")
    table = measure(replace(metric, claims=()), rows_of(columns, pairing)).table
    return pl.DataFrame(columns).with_columns(*(table[name] for name in table.columns[3:]))


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
        if claim.over == "ratio" and claim.numerator is not None and claim.denominator is not None:
            units = [unit_of(part, one, other) for part in (claim.numerator, claim.denominator)]
            assert units[0] == units[1]
