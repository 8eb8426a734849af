"""Built-in metrics on losses whose answers are exact."""

import numpy as np
import polars as pl
import pytest
from numpy.testing import assert_allclose

from analysis.columns import Units
from analysis.measure import measure, values
from analysis.metric import Metric
from analysis.registry import metrics
from analysis.rounding import LOSS_ERRORS
from analysis.tables import Tables
from tests.problems import descend, kink, linear, logistic, positive_definite, quadratic, saddle
from tests.tables_by_hand import geometry_tables, tables

METRICS = metrics()
HESSIAN = positive_definite(6, 0.1, 4.0, seed=1)
START = np.random.default_rng(3).normal(size=6)


def column(name, measured, block="model", pairing="previous", of="value"):
    table = measured.collect() if isinstance(measured, pl.LazyFrame) else measured.table
    rows = table.filter((pl.col("block").cast(str) == block) & (pl.col("pairing").cast(str) == pairing))
    return rows[of].to_numpy()


def verdict(name, claim, given, pairing="previous"):
    rows = measure(METRICS[name], given).verdicts
    return rows.filter((pl.col("claim") == claim) & (pl.col("pairing") == pairing)).row(0, named=True)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_on_a_quadratic_gap_is_minus_half_dHd_and_smoothness_is_Hd_over_d(momentum):  # noqa: N802
    run = descend(quadratic(HESSIAN, START, noise=0.2), 0.1, 60, momentum)
    given = tables(run)
    d = np.diff(run.x, axis=0)
    gap = column("convexity_gap", measure(METRICS["convexity_gap"], given))
    assert_allclose(gap, -np.einsum("ti,ij,tj->t", d, HESSIAN, d) / 2, atol=1e-12)
    smoothness = column("smoothness", measure(METRICS["smoothness"], given))
    assert_allclose(smoothness, np.linalg.norm(d @ HESSIAN, axis=1) / np.linalg.norm(d, axis=1))


def test_on_a_kink_smoothness_is_two_over_lr_and_the_gap_alternates():
    lr, start, steps = 0.3, 0.1, 40
    given = tables(descend(kink(start), lr, steps + 1))
    smooth = measure(METRICS["smoothness"], given)
    assert_allclose(column("smoothness", smooth), np.full(steps, 2 / lr))
    assert_allclose(column("smoothness", smooth, of="two_over_lr"), np.full(steps, 2 / lr))
    gap = column("convexity_gap", measure(METRICS["convexity_gap"], given))
    assert_allclose(gap, np.where(np.arange(steps) % 2 == 0, -2 * start, -2 * (lr - start)))
    assert_allclose(column("", measure(METRICS["update_correlation"], given)), np.full(steps, lr))


def test_on_a_kink_update_correlation_fails_although_the_loss_is_convex():
    given = tables(descend(kink(0.1), 0.3, 201))
    assert verdict("update_correlation", "negative on average", given)["status"] == "FAILS"
    assert verdict("convexity_gap", "convex at every step", given)["status"] == "HOLDS"


def test_one_mode_of_descent_has_the_closed_form_update_correlation():
    h, lr = 2.0, 0.7
    run = descend(quadratic(np.array([[h]]), np.array([1.0])), lr, 20)
    error = run.x[:-1, 0]
    found = column("", measure(METRICS["update_correlation"], tables(run)))
    assert_allclose(found, -lr * h**2 * error**2 * (1 - lr * h), atol=1e-15)
    assert (found > 0).all()  # although the loss falls at every step
    assert (np.diff(run.loss) < 0).all()


def test_stationary_noise_on_a_quadratic_gives_the_null_value_of_update_correlation():
    h, lr, noise, size = 1.5, 0.4, 1.0, 200
    run = descend(quadratic(h * np.eye(size), np.zeros(size), noise), lr, 1500, seed=5)
    start = 100
    given = tables(run)
    found = column("", measure(METRICS["update_correlation"], given))[start:] / size
    null = lr**2 * h * noise**2 / (2 - lr * h)
    assert found.mean() == pytest.approx(null, rel=0.03)
    gap = column("", measure(METRICS["convexity_gap"], given))[start:] / size
    assert gap.mean() == pytest.approx(-null, rel=0.03)
    result = verdict("update_correlation", "negative on average", given)
    assert result["status"] == "FAILS"
    assert result["lower"] < null * size < result["upper"]


def test_cumulative_update_correlation_minus_loss_change_is_minus_the_cumulative_gap():
    given = tables(descend(logistic(3), 0.3, 80))
    correlation = measure(METRICS["update_correlation"], given)
    difference = column("", correlation, of="cumulative") - column("", correlation, of="cumulative_loss_change")
    gap = column("", measure(METRICS["convexity_gap"], given), of="cumulative")
    assert_allclose(difference, -gap, atol=1e-13)


def test_block_values_of_update_correlation_are_shares_of_the_models():
    measured = values(METRICS["update_correlation"], tables(descend(logistic(3), 0.3, 30), blocks=3))
    shares = sum(column("", measured, block=f"w{i}") for i in range(3))
    assert_allclose(shares, column("", measured), atol=1e-15)


def test_a_formula_with_a_loss_stands_on_the_model_alone_and_others_on_every_block():
    given = tables(descend(logistic(3), 0.3, 10), blocks=2)
    gap, smooth = (values(METRICS[n], given).collect()["block"].cast(str) for n in ("convexity_gap", "smoothness"))
    assert set(gap) == {"model"}
    assert set(smooth) == {"model", "w0", "w1"}
    assert set(measure(METRICS["smoothness"], given).table["block"].cast(str)) == {"model"}


def test_smoothness_below_2_over_lr_holds_below_the_limit_and_fails_above():
    for lr, status in ((0.1, "HOLDS"), (0.6, "FAILS")):
        given = tables(descend(quadratic(4 * np.eye(2), np.ones(2), 0.1), lr, 60))
        result = verdict("smoothness", "below 2/lr", given)
        assert result["status"] == status
        assert result["estimate"] == pytest.approx(4 * lr)


def test_the_rate_that_counts_is_that_of_the_step_which_made_the_pair():
    rates = np.array([0.1] * 40 + [0.9] * 40)
    given = tables(descend(quadratic(4 * np.eye(2), np.ones(2), 0.1), rates, 80))
    limits = column("", measure(METRICS["smoothness"], given), of="two_over_lr")
    assert_allclose(limits, 2 / rates[:-1])
    assert verdict("smoothness", "below 2/lr", given)["violations"] == 39


@pytest.mark.parametrize("optimizer", ["torch.optim.adam.Adam", "AdamW", "mine.Lion", ""])
def test_below_2_over_lr_is_not_applicable_to_other_optimizers(optimizer):
    given = tables(descend(logistic(1), 0.3, 60), optimizer_class=optimizer)
    result = verdict("smoothness", "below 2/lr", given)
    assert result["status"] == "NOT APPLICABLE"
    assert "Euclidean step length" in result["reason"]
    assert result["estimate"] > 0


def test_momentum_is_named_as_a_caveat_only_where_there_is_any():
    run = descend(logistic(1), 0.1, 60)
    plain = verdict("smoothness", "below 2/lr", tables(run, hyperparameters={"momentum": 0.0, "weight_decay": 0}))
    heavy = verdict("smoothness", "below 2/lr", tables(run, hyperparameters={"momentum": 0.9, "weight_decay": 0}))
    assert "momentum" not in plain["caveat"]
    assert "2(1+b)/lr" in heavy["caveat"]
    assert "Weight decay" not in heavy["caveat"]


def test_smoothness_that_grows_fails_and_that_falls_holds():
    random = np.random.default_rng(0)
    for slope, status in ((1, "FAILS"), (-1, "HOLDS")):
        values = 10 + slope * np.linspace(0, 5, 600) + random.normal(size=600)
        given = geometry_tables({"dg_dg": values**2, "d_d": np.ones(600)})
        assert verdict("smoothness", "does not keep growing", given)["status"] == status


def test_exponential_mean_is_corrected_for_its_start():
    constant = geometry_tables({"gx_d": np.full(40, 3.0)})
    found = column("", measure(METRICS["update_correlation"], constant), of="exponential_mean")
    assert_allclose(found, np.full(40, 3.0))  # uncorrected: (1 − 0.99ⁿ) 3
    values = np.random.default_rng(0).normal(size=50)
    found = column("", measure(METRICS["update_correlation"], geometry_tables({"gx_d": values})), of="exponential_mean")
    zero_start = 0.0
    for value in values:
        zero_start = 0.99 * zero_start + 0.01 * value
    assert found[-1] == pytest.approx(zero_start / (1 - 0.99**50))


def test_a_linear_loss_has_gap_zero_and_no_verdict_beyond_rounding():
    given = tables(descend(linear(), 0.1, 200))
    assert np.abs(column("", measure(METRICS["convexity_gap"], given))).max() < 1e-13
    for claim in ("convex at every step", "convex on average"):
        result = verdict("convexity_gap", claim, given)
        assert result["status"] == "INCONCLUSIVE"
        assert "numerics" in result["reason"]


def test_where_the_loss_difference_drowns_in_rounding_the_trapezoid_decides():
    n = 60
    lost = {"loss_x": np.full(n, 5.0), "loss_y": np.full(n, 5.0), "gx_d": np.full(n, 1e-9), "d_d": np.full(n, 1e-12)}
    convex, concave = ({**lost, "dg_d": np.full(n, s * 1e-8), "gx_gx": np.full(n, 1e-4)} for s in (1, -1))
    small = {"gy_gy": np.full(n, 1e-4), "dg_dg": np.full(n, 1e-4)}
    for rows, status in ((convex, "HOLDS"), (concave, "FAILS")):
        given = geometry_tables({**rows, **small}, dtype="float32", loss_dtype="float32")
        result = verdict("convexity_gap", "convex at every step", given)
        assert result["status"] == status
        assert abs(result["worst"]) == pytest.approx(5e-9)


def test_in_float32_a_gap_below_rounding_is_no_violation():
    n = 60
    rows = {"loss_x": np.full(n, 5.0), "loss_y": np.full(n, 5.0 - 1e-6), "gx_d": np.zeros(n), "d_d": np.full(n, 1e-12)}
    rows["dg_d"] = np.full(n, np.nan)
    exact, coarse = (
        verdict("convexity_gap", "convex on average", geometry_tables(rows, loss_dtype=kind, dtype="float64"))
        for kind in ("float64", "float32")
    )
    assert exact["tolerance"] < 1e-12
    assert coarse["tolerance"] == pytest.approx(LOSS_ERRORS * 2.0**-24 * 5, rel=1e-6)
    assert (exact["violations"], coarse["violations"]) == (n, 0)


def test_leaving_a_saddle_fails_convexity_at_every_step():
    result = verdict("convexity_gap", "convex at every step", tables(descend(saddle(0.01), 0.05, 300)))
    assert result["status"] == "FAILS"
    assert result["violations"] > 100
    assert "does not refute convexity of the population loss" in " ".join(result["caveat"].split())


def test_without_a_probe_the_gap_is_not_applicable_and_unpaired_rows_are_never_judged():
    given = tables(descend(logistic(1), 0.3, 300), look_back=False)
    result = verdict("convexity_gap", "convex on average", given)
    assert result["status"] == "NOT APPLICABLE"
    assert "look_back" in result["reason"]
    assert (result["pairs"], result["missing"]) == (0, 299)
    for metric in METRICS.values():
        unpaired = measure(metric, given).verdicts.filter(pl.col("pairing") == "unpaired")
        at_previous = [claim for claim in metric.claims if claim.judged_at("previous", metric.pairings)]
        assert len(unpaired) >= len(at_previous)
        assert set(unpaired["status"]) <= {"NOT APPLICABLE"}
        assert unpaired["reason"].str.contains("different minibatches; see R6").all()
        assert unpaired.filter(pl.col("pairs") > 0)["estimate"].null_count() == 0


def test_update_correlation_needs_no_probe():
    result = verdict(
        "update_correlation", "negative on average", tables(descend(logistic(1), 0.3, 300), look_back=False)
    )
    assert result["status"] in {"HOLDS", "FAILS", "INCONCLUSIVE"}
    assert result["pairs"] == 299


def test_a_rate_that_differs_between_groups_is_named():
    given = tables(descend(logistic(1), 0.3, 50), hyperparameters={"group0.lr": 0.3})
    steps = given.steps.with_columns(lr=pl.lit(None, pl.Float64))
    result = verdict("smoothness", "below 2/lr", type(given)(given.geometry, given.path, steps, given.facts))
    assert result["status"] == "NOT APPLICABLE"
    assert "do not share one learning rate" in result["reason"]


@pytest.mark.parametrize(
    ("metric", "claim"), [("convexity_gap", "convex at every step"), ("severity", "rarely severe")]
)
def test_a_kink_between_two_flat_ends_is_seen_by_its_losses(metric, claim):
    """clip(x, 0, 1) from below 0 to above 1 and back: both slopes are 0, the gap is 1 one way and −1 the other."""
    n = 200
    up = np.arange(n) % 2
    flat = {name: np.zeros(n) for name in ("gx_d", "gy_d", "dg_d", "dg_dg", "gx_gx", "gy_gy", "gx_gy")}
    rows = {"loss_x": up.astype(float), "loss_y": 1.0 - up, "d_d": np.full(n, 4.0), **flat}
    assert verdict(metric, claim, geometry_tables(rows))["status"] == "FAILS"


@pytest.mark.parametrize("lost", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_undefined_although_the_gradients_are_finite(lost):
    rows = {"loss_x": [1.0] * 60, "loss_y": [2.0] * 60, "gx_d": [0.5] * 60, "dg_d": [1.0] * 60}
    rows["loss_x"][20] = lost
    result = verdict("convexity_gap", "convex at every step", geometry_tables(rows))
    assert (result["status"], result["undefined"], result["pairs"]) == ("INCONCLUSIVE", 1, 59)


def test_the_rate_before_a_gap_did_not_make_the_point_after_it():
    metric = Metric(name="mine", units=Units(), value=pl.col("lr_previous") + 0 * pl.col("g_x"))
    given = geometry_tables({"gx_d": np.ones(3)}, steps={"step": [0, 1, 5, 6], "lr": [0.1, 0.2, 0.3, 0.4]})
    at = pl.Series([1, 5, 6])
    path = pl.DataFrame({"step": at, "block": ["model"] * 3, "g_x": [1.0] * 3}).with_columns(
        pl.col("block").cast(given.geometry.collect_schema()["block"])
    )
    table = measure(metric, Tables(given.geometry.with_columns(step=at), path.lazy(), given.steps, given.facts)).table
    assert table["value"].to_list() == [0.1, None, 0.3]


@pytest.mark.parametrize("name", ["convexity_gap", "smoothness"])
def test_a_mean_from_zero_is_not_corrected_and_begins_again_in_each_epoch(name):
    given = geometry_tables({"d_d": [1.0] * 50}, {"epoch": [0] * 21 + [1] * 30})  # step 0 has no pair
    table = measure(METRICS[name], given).table
    value, c = table["value"][0], 0.9999
    n = np.concatenate([np.arange(1, 21), np.arange(1, 31)])
    assert_allclose(table["zero_start_mean"].to_numpy(), (1 - c**n) * value, rtol=1e-10)
    assert_allclose(table["long_exponential_mean"].to_numpy(), np.full(50, value))


def test_a_mean_from_zero_is_the_recursion_of_the_scripts_and_one_run_without_epochs():
    values = np.random.default_rng(0).standard_normal(40)
    found = measure(
        METRICS["convexity_gap"], geometry_tables({"loss_x": values, "loss_y": [0.0] * 40, "gx_d": [0.0] * 40})
    )
    mean, by_hand = 0.0, []
    for one in values:
        mean = 0.9999 * mean + 0.0001 * one
        by_hand.append(mean)
    assert_allclose(found.table["zero_start_mean"].to_numpy(), by_hand, rtol=1e-8)
