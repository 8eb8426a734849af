"""Parameter tensors judged by themselves."""

from collections import Counter

import numpy as np
import polars as pl
import pytest

from analysis.columns import GEOMETRY, Units, d_d, gx_d
from analysis.judging.blocks import BLOCKS_SCHEMA
from analysis.judging.statistics import mean_interval, ratio_interval, trend_interval
from analysis.measure import measure
from analysis.metric import Claim, Metric
from analysis.rounding import slope_rounding
from analysis.tables import MODEL, Tables, pairing_type
from tests.tables_by_hand import geometry_tables

COUNT = 100
MEAN = Claim(name="mean", at_most=0, over="on average", tolerance=1e-9 * d_d)
TREND = Claim(name="trend", at_most=0, over="trend", tolerance=1e-9 * d_d)
RATIO = Claim(name="ratio", at_most=0.5, over="ratio", numerator=gx_d, denominator=d_d)


def _metric(*claims, **more):
    return Metric(name="m", units=Units(), value=gx_d, tolerance=slope_rounding, claims=claims, **more)


def _tables(slopes, **columns):
    """``slopes``: shape (steps, blocks), null where None."""
    n, k = np.shape(slopes)
    names = [f"w{i}" for i in range(k)]
    block = pl.Enum([MODEL, *names])
    table = {name: np.ones(n * (k + 1)) for name in GEOMETRY}
    for name, numbers in {"gx_d": slopes, **columns}.items():
        table[name] = np.column_stack([np.sum(numbers, axis=1), numbers]).ravel()
    keys = {
        "pairing": pl.Series(["previous"] * n * (k + 1), dtype=pairing_type(())),
        "step": np.repeat(np.arange(1, n + 1), k + 1),
        "block": pl.Series([MODEL, *names] * n, dtype=block),
    }
    bare = geometry_tables({"gx_d": [0.0] * n}, blocks=tuple(names))
    return Tables(pl.DataFrame({**keys, **table}).lazy(), bare.path.cast({"block": block}), bare.steps, bare.facts)


@pytest.mark.parametrize("claim", [MEAN, TREND], ids=lambda c: c.name)
def test_no_tensor_is_found_where_none_is_beyond_in_all_but_5_percent_of_runs(claim):
    random, runs, found = np.random.default_rng(3), 200, 0
    metric = _metric(claim)
    for _ in range(runs):
        table = measure(metric, _tables(random.standard_normal((400, COUNT)))).blocks
        assert table["p_value"].null_count() < COUNT / 4
        found += bool((table["status"] == "FAILS").any())
    assert found / runs <= 0.07


def test_a_tensor_far_beyond_is_found_and_counted_among_a_hundred():
    slopes = np.random.default_rng(0).standard_normal((1000, COUNT))
    slopes[:, 17] += 0.5
    slopes[:, 40:] -= 0.5
    given, metric = _tables(slopes), _metric(MEAN)
    table = measure(metric, given).blocks
    assert table.filter(status="FAILS")["block"].to_list() == ["w17"]
    assert table.filter(status="HOLDS").height >= 55
    row = measure(metric, given).verdicts_with_blocks.row(0, named=True)
    assert row["blocks_beyond"] == 1
    assert 95 <= row["blocks_tested"] <= COUNT


def test_the_numbers_are_those_of_each_tensor_alone():
    random = np.random.default_rng(1)
    slopes, squares = random.standard_normal((800, 3)), np.exp(random.standard_normal((800, 3)))
    table = measure(_metric(MEAN, TREND, RATIO), _tables(slopes, d_d=squares)).blocks
    for i in range(3):
        a, b = slopes[:, i], squares[:, i]
        alone = {"mean": mean_interval(a), "trend": trend_interval(a), "ratio": ratio_interval(a, b, 0.5).ratio}
        for claim, interval in alone.items():
            row = table.filter(claim=claim, block=f"w{i}").row(0, named=True)
            by_hand = (interval.estimate, interval.lower, interval.upper)
            assert [row[end] for end in ("estimate", "lower", "upper")] == pytest.approx(by_hand)


def test_a_tensor_that_diverged_or_has_too_few_values_is_not_tested():
    slopes = np.random.default_rng(2).standard_normal((1000, 3)) + 1
    slopes[500, 0] = np.nan
    table = measure(_metric(MEAN), _tables(slopes)).blocks
    assert table["status"].to_list() == ["INCONCLUSIVE", "FAILS", "FAILS"]
    assert table["p_value"].is_null().to_list() == [True, False, False]
    few = measure(_metric(MEAN), _tables(slopes[600:650])).blocks
    assert set(few["status"]) == {"INCONCLUSIVE"}


def test_claims_that_mean_nothing_on_a_tensor_have_no_rows():
    given = _tables(np.ones((200, 2)))
    for metric in (_metric(MEAN, blocks="no"), _metric(Claim(at_most=0))):
        table = measure(metric, given).blocks
        assert table.is_empty()
        assert table.schema == BLOCKS_SCHEMA


@pytest.mark.parametrize("claim", [MEAN, TREND, RATIO], ids=lambda c: c.name)
def test_a_single_tensor_is_decided_as_the_model_is(claim):
    random, statuses = np.random.default_rng(5), Counter()
    metric = _metric(claim)
    for shift in np.linspace(-0.3, 0.3, 30):  # most of them within two standard errors of the bound
        rising = np.linspace(-shift, shift, 400)[:, None] if claim is TREND else shift
        slopes = random.standard_normal((400, 1)) + rising + (0.55 if claim is RATIO else 0)
        found = measure(metric, _tables(slopes, d_d=1 + 0.2 * random.random((400, 1))))
        assert found.blocks["status"].to_list() == found.verdicts["status"].to_list()
        statuses[found.blocks["status"].item()] += 1
    assert min(statuses[status] for status in ("FAILS", "HOLDS", "INCONCLUSIVE")) >= 3


def test_a_p_value_is_of_both_sides_and_the_adjusted_one_of_the_side_of_the_estimate():
    slopes = np.random.default_rng(0).standard_normal((1000, 40)) + np.linspace(-0.3, 0.3, 40)
    table = measure(_metric(MEAN), _tables(slopes)).blocks.filter(pl.col("p_value").is_not_null())
    assert len(table) >= 30
    assert (table["adjusted"] >= table["p_value"]).all()
    decided = pl.when(pl.col("adjusted") > 0.05).then(pl.lit("INCONCLUSIVE"))
    by_hand = decided.when(pl.col("estimate") > 0).then(pl.lit("FAILS")).otherwise(pl.lit("HOLDS"))
    assert table["status"].to_list() == table.select(by_hand).to_series().to_list()
    assert table["status"].n_unique() == 3
    alone = (pl.col("lower") > 0) | (pl.col("upper") < 0)  # the tensor's own interval leaves out the bound
    assert table.select((alone == (pl.col("p_value") < 0.05)).all()).item()
