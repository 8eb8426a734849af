"""Windows of a metric, against plain numpy."""

import numpy as np
import polars as pl
import pytest
from numpy.testing import assert_allclose

from analysis.columns import Units, d_d, dg_d, gx_d, value
from analysis.judging.windows import STEPS
from analysis.measure import measure
from analysis.metric import Metric, Variant
from analysis.registry import metrics
from tests.problems import descend, positive_definite, quadratic
from tests.tables_by_hand import geometry_tables, tables

RATIO = Metric(
    name="a_ratio",
    units=Units(),
    value=gx_d / d_d,
    ratio=(gx_d, d_d),
    variants=(Variant("twice", "twice", 2 * gx_d), Variant("most", "most", 3 * gx_d, summary=value.max())),
)


def _given(n: int = 250, **rows):
    random = np.random.default_rng(0)
    drawn = {"gx_d": random.standard_normal(n), "d_d": np.exp(random.standard_normal(n)), **rows}
    epochs = np.arange(n + 1) // 90
    return drawn, epochs, geometry_tables({k: list(v) for k, v in drawn.items()}, {"epoch": epochs})


@pytest.mark.parametrize("kind", ["run", "epoch", f"steps:{STEPS}"])
def test_every_kind_of_window_agrees_with_numpy_and_a_ratio_is_one_of_sums(kind):
    drawn, epochs, given = _given()
    step = np.arange(1, 251)
    number = {"run": 0 * step, "epoch": epochs[1:], f"steps:{STEPS}": step // STEPS}[kind]
    found = measure(RATIO, given).windows.filter(window=kind)
    assert found["number"].to_list() == sorted(set(number))
    for row in found.iter_rows(named=True):
        within = number == row["number"]
        a, b = drawn["gx_d"][within], drawn["d_d"][within]
        q = a / b
        by_hand = [q.mean(), q.sum(), q.min(), np.median(q), q.max(), a.sum(), b.sum(), a.sum() / b.sum()]
        by_hand += [2 * a.mean(), 3 * a.max()]
        names = ["mean", "total", "smallest", "median", "largest", "numerator", "denominator", "ratio", "twice", "most"]
        assert_allclose([row[name] for name in names], by_hand)
        assert abs(row["ratio"] - row["mean"]) > 1e-3
        assert (row["first_step"], row["last_step"], row["pairs"]) == (step[within][0], step[within][-1], within.sum())
        assert (row["undefined"], row["missing"]) == (0, 0)


def test_missing_and_undefined_pairs_are_counted_apart_and_enter_no_number():
    slope = np.random.default_rng(1).standard_normal(120)
    holes = [None if i < 3 else float("nan") if i < 8 else float(v) for i, v in enumerate(slope)]
    _, _, given = _given(120, gx_d=holes, d_d=np.ones(120))
    row = measure(RATIO, given).windows.filter(window="run").row(0, named=True)
    assert (row["pairs"], row["undefined"], row["missing"]) == (112, 5, 3)
    for name in ("mean", "ratio"):
        assert row[name] == pytest.approx(slope[8:].mean())
    assert row["denominator"] == 112


def test_windows_without_a_defined_value_have_counts_and_no_number():
    _, _, given = _given(120, gx_d=[None] * 120)
    row = measure(RATIO, given).windows.filter(window="run").row(0, named=True)
    assert (row["pairs"], row["missing"], row["first_step"], row["last_step"]) == (0, 120, 1, 120)
    assert all(row[name] is None for name in ("mean", "total", "smallest", "ratio", "numerator", "twice", "most"))


def test_a_gap_leaves_its_windows_out_and_without_epochs_there_are_none():
    at = pl.col("step")
    gap = geometry_tables({"gx_d": [1.0] * 250})
    kept = type(gap)(gap.geometry.filter((at < 90) | (at >= 205)), gap.path, gap.steps, gap.facts)
    found = measure(RATIO, kept).windows
    assert set(found["window"]) == {"run", f"steps:{STEPS}"}
    of_steps = found.filter(window=f"steps:{STEPS}").select("number", "first_step", "last_step", "pairs").rows()
    assert of_steps == [(0, 1, 89, 89), (2, 205, 250, 46)]


def test_totals_of_blocks_that_are_shares_add_up_to_the_model():
    shares = [metric for metric in metrics().values() if metric.blocks == "share" and metric.has_blocks]
    run = descend(quadratic(positive_definite(6, 0.1, 2.0, 0), np.ones(6)), 0.05, 230)
    given = tables(run, blocks=3, look_ahead=True, references={"last": run.x[-1]})
    tested = 0
    for metric in shares:
        found = measure(metric, given).windows.filter(pl.col("pairing") != "unpaired")
        for (_, _, _), part in found.group_by("pairing", "window", "number"):
            model = part.filter(block="model")["total"].item()
            parts = part.filter(pl.col("block") != "model")["total"]
            if model is not None and len(parts) == 3:
                assert_allclose(parts.sum(), model, rtol=1e-9, atol=1e-12)
                tested += 1
    assert tested > 20


def test_a_metric_without_meaning_on_blocks_has_windows_of_the_model_alone():
    run = descend(quadratic(positive_definite(6, 0.1, 2.0, 0), np.ones(6)), 0.05, 50)
    given = tables(run, blocks=3)
    assert set(measure(metrics()["convexity_gap"], given).windows["block"]) == {"model"}
    every = Metric(name="every", units=Units(), value=dg_d, blocks="trajectory")
    assert set(measure(every, given).windows["block"]) == {"model", "w0", "w1", "w2"}


def test_an_epoch_that_was_come_back_to_is_one_window():
    slope, epochs = np.random.default_rng(1).standard_normal(6), [0, 0, 0, 1, 1, 0, 0]
    given = geometry_tables({"gx_d": list(slope)}, {"epoch": epochs})
    found = measure(RATIO, given).windows.filter(window="epoch")
    assert found.select("number", "first_step", "last_step", "pairs").rows() == [(0, 1, 6, 4), (1, 3, 4, 2)]
    assert found["total"].to_list() == pytest.approx([slope[[0, 1, 4, 5]].sum(), slope[[2, 3]].sum()])
    assert found["twice"].to_list() == pytest.approx([2 * slope[[0, 1, 4, 5]].mean(), 2 * slope[[2, 3]].mean()])


def test_neighbouring_epochs_of_any_size_are_different_windows():
    large, none = 2**53, None
    given = geometry_tables({"gx_d": [1.0, 2.0, 3.0, 4.0]}, {"epoch": [none, large, large + 1, large + 1, none]})
    found = measure(RATIO, given).windows.filter(window="epoch", block="model")
    assert found["number"].to_list() == [large, large + 1]
    assert found["pairs"].to_list() == [1, 2]
