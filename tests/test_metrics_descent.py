"""Families D and E on losses whose answers are exact: what the metric files give through the tables."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from numpy.testing import assert_allclose

from analysis.measure import measure, values
from analysis.registry import metrics
from tests.problems import Problem, descend, kink, linear, logistic, quadratic
from tests.recorded_walks import along, halves_of, isotropic, rows_of, tables_of, walk
from tests.tables_by_hand import tables

pytestmark = pytest.mark.usefixtures("path_taken")

METRICS = metrics()
H, LR, SIZE = 1.5, 0.4, 4000
AT_REST = LR**2 * H / (2 - LR * H) * SIZE  # update correlation of SGD at rest, unit noise in SIZE coordinates


def column(name, given, pairing="previous", of="value"):
    table = measure(replace(METRICS[name], claims=()), given).table
    return table.filter(pl.col("pairing").cast(str) == pairing)[of].to_numpy()


def verdict(name, claim, given, pairing="previous"):
    rows = measure(METRICS[name], given).verdicts
    return rows.filter((pl.col("claim") == claim) & (pl.col("pairing") == pairing)).row(0, named=True)


def bias(result):
    """The amount of the first bias, as the verdict words it."""
    return float(result["biases"].split()[1])


@pytest.fixture(scope="module")
def resting(path_taken):
    problem = isotropic(H, SIZE, 1.0, start=np.sqrt(LR / H / (2 - LR * H)))
    return tables_of(walk(problem, LR, 300, seed=11, halves=halves_of(H)))


@pytest.fixture(scope="module")
def noise_alone(path_taken):
    """F = 0, with momentum 0.9."""
    return tables_of(walk(isotropic(0.0, SIZE, 1.0), LR, 300, 0.9, seed=7, halves=halves_of(0.0)))


def test_at_rest_the_metrics_have_their_null_values(resting):
    assert column("update_correlation", resting).mean() == pytest.approx(AT_REST, rel=0.03)
    assert column("descent_term", resting).mean() == pytest.approx(-AT_REST, rel=0.03)
    assert column("loss_change", resting).mean() == pytest.approx(0, abs=0.03 * AT_REST)
    assert verdict("progress_ratio", "promised progress comes", resting)["estimate"] == pytest.approx(0, abs=0.03)
    assert column("cos_grad", resting).mean() == pytest.approx(-LR * H / 2, rel=0.03)
    assert np.nanmean(column("cos_step", resting)) == pytest.approx(-LR * H / 2, rel=0.03)
    assert verdict("cos_grad", "gradients alternate", resting)["status"] == "HOLDS"
    index = verdict("oscillation", "no more than noise", resting)
    assert index["estimate"] == pytest.approx((1 + LR * H / 2) / 2, rel=0.01)
    assert index["status"] == "FAILS"
    assert verdict("descent_rate", "falls more often than it rises", resting)["estimate"] == pytest.approx(0.5, abs=0.1)


def test_in_sample_is_lower_by_lr_trace_sigma_and_the_bias_says_so(resting):
    for name in ("descent_term", "loss_change"):
        apart = column(name, resting, "next").mean() - column(name, resting).mean()
        assert apart == pytest.approx(-LR * SIZE, rel=0.02)
    own = verdict("descent_term", "downhill on its own minibatch", resting, "next")
    assert own["status"] == "HOLDS"
    assert own["biases"].startswith("R2")
    assert bias(own) == pytest.approx(-LR * SIZE, rel=0.05)
    assert verdict("loss_change", "the loss falls", resting, "next")["status"] == "NOT APPLICABLE"


def test_optimism_is_lr_trace_sigma(resting):
    assert column("optimism", resting).mean() == pytest.approx(LR * SIZE, rel=0.02)
    assert verdict("optimism", "equals lr tr Σ", resting)["status"] == "HOLDS"
    assert verdict("optimism", "steps look better on their own minibatch", resting)["status"] == "HOLDS"


def test_without_noise_there_is_no_optimism():
    given = tables_of(walk(isotropic(1.0, 3, start=1.0), 0.1, 20))
    assert_allclose(column("optimism", given), 0, atol=1e-15)
    assert column("optimism", tables_of(walk(linear(), 0.1, 1))).tolist() == []


def test_optimism_does_not_cross_a_gap():
    given = tables_of(walk(isotropic(H, 50, 1.0), LR, 6))
    some = type(given)(given.geometry, given.path, given.steps.filter(pl.col("step") != 2), given.facts)
    assert np.isnan(column("optimism", some)).tolist() == [False, True, True, False, False]


def test_reshuffled_epochs_bias_by_what_the_verdict_prints():
    length, epochs, size = 40, 8, 2000
    pool = np.random.default_rng(2).normal(size=(length, 2 * size)) * np.sqrt(2)
    pool -= np.tile(pool.reshape(length, 2, size).mean((0, 1)), 2)  # the minibatches of an epoch add up to nothing
    order = np.concatenate([np.random.default_rng(e).permutation(length) for e in range(epochs)])
    w = walk(
        isotropic(0.0, size),
        LR,
        length * epochs,
        draw=lambda t: pool[order[t]],
        halves=halves_of(0.0),
        epoch=[t // length for t in range(length * epochs)],
    )
    result = verdict("update_correlation", "negative on average", tables_of(w))
    assert result["biases"].startswith("R7")
    assert result["estimate"] == pytest.approx(LR * size / length, rel=0.15)  # independent minibatches have 0
    assert bias(result) == pytest.approx(result["estimate"], rel=0.15)
    cosine = verdict("cos_grad", "gradients alternate", tables_of(w))
    assert bias(cosine) == pytest.approx(cosine["estimate"], rel=0.15)


def test_without_epochs_halves_or_sgd_no_amount_is_claimed(resting):
    steps = resting.steps.drop("momentum").with_columns(epoch=pl.lit(0.0))
    adam = type(resting)(resting.geometry, resting.path, steps, resting.facts)
    for given in (resting, adam):
        assert "R7 not known here" in verdict("update_correlation", "negative on average", given)["biases"]


def test_noise_alone_with_momentum_has_its_own_null_values(noise_alone):
    assert column("cos_step", noise_alone)[50:].mean() == pytest.approx(0.9, abs=0.01)
    result = verdict("cos_step", "steps turn back", noise_alone)
    assert (result["status"], bias(result)) == ("FAILS", 0.9)
    assert column("momentum_alignment", noise_alone)[50:].mean() == pytest.approx(np.sqrt(1 - 0.81), abs=0.01)
    fresh = verdict("momentum_alignment", "the buffer agrees with fresh gradients", noise_alone)
    assert fresh["lower"] < 0 < fresh["upper"]
    assert verdict("oscillation", "no more than noise", noise_alone)["estimate"] == pytest.approx(0.05, abs=0.01)


def test_for_sgd_the_fresh_momentum_product_is_minus_update_correlation_over_lr(resting):
    found = column("momentum_alignment", resting, of="cumulative_fresh")
    assert_allclose(found, -np.cumsum(column("update_correlation", resting)) / LR, rtol=1e-9)
    assert_allclose(column("momentum_alignment", resting), 1)  # without momentum the buffer is the gradient
    assert verdict("momentum_alignment", "the buffer agrees with fresh gradients", resting)["status"] == "FAILS"


def test_one_mode_of_descent_makes_the_progress_of_its_curvature():
    for lr in (0.1, 0.4, 0.9):
        given = tables_of(walk(isotropic(2.0, 1, start=1.0), lr, 30))
        for pairing in ("previous", "next"):
            assert_allclose(column("progress_ratio", given, pairing), 1 - lr)  # 1 − lr κ/2
            assert_allclose(column("progress_ratio", given, pairing, of="ratio_so_far"), 1 - lr)


@pytest.mark.parametrize(("progress", "status"), [(0.3, "HOLDS"), (-0.3, "FAILS")])
def test_progress_of_the_other_sign_than_promised_fails_and_so_do_rising_losses(progress, status):
    change = -progress + 0.1 * np.random.default_rng(0).normal(size=300)
    products = {"loss_x": change, "loss_y": np.zeros(300), "gx_gx": np.ones(300), "gy_gy": np.ones(300)}
    given = rows_of({**products, "gx_d": change, "gy_d": np.full(300, -1.0)})
    result = verdict("progress_ratio", "promised progress comes", given)
    assert (result["status"], result["estimate"]) == (status, pytest.approx(progress, abs=0.02))
    assert verdict("loss_change", "the loss falls", given)["status"] == status
    assert verdict("descent_rate", "falls more often than it rises", given)["status"] == status


def test_the_update_correlation_of_one_mode_turns_positive_at_1_over_h_and_the_loss_falls_all_the_same():
    given = tables_of(walk(isotropic(2.0, 1, start=1.0), 0.7, 30))
    error = 0.4 ** np.arange(29) * (-1.0) ** np.arange(29)
    assert_allclose(column("update_correlation", given), -0.7 * 4 * error**2 * (1 - 1.4), atol=1e-14)
    assert_allclose(column("loss_change", given), -0.7 * 4 * error**2 * (1 - 0.7), atol=1e-14)
    assert_allclose(column("descent_rate", given), 0)
    assert_allclose(column("cos_step", given)[1:], -1)
    assert_allclose(column("cos_grad", given), -1)


def test_the_three_sums_are_in_order_on_a_convex_loss():
    given = tables_of(walk(logistic(3), 0.3, 400))
    total = {of: column("loss_change", given, of=of) for of in _SUMS}
    change, correlation, term = total.values()
    assert (correlation >= change).all()
    assert (change >= term).all()
    assert_allclose(correlation - change, -column("convexity_gap", given, of="cumulative"), atol=1e-12)
    for claim in ("convex: below the update correlation", "convex: above the descent term"):
        assert verdict("loss_change", claim, given)["status"] == "HOLDS"
    down = tables_of(walk(quadratic(-np.eye(4), np.zeros(4), noise=3.0), 0.002, 600))
    for claim in ("convex: below the update correlation", "convex: above the descent term"):
        assert verdict("loss_change", claim, down)["status"] == "FAILS"


_SUMS = ("cumulative", "cumulative_update_correlation", "cumulative_descent_term")


def test_fresh_loss_changes_add_up_to_the_change_of_the_population_loss_and_in_sample_ones_do_not():
    w = walk(isotropic(0.8, 20000, 1.0, start=1.0), 0.2, 31, seed=1)
    given = tables_of(w)
    fell = 0.4 * (w.x[30] @ w.x[30] - w.x[0] @ w.x[0])
    assert column("loss_change", given, of="cumulative")[-1] == pytest.approx(fell, rel=0.05)
    own = column("loss_change", given, "next", of="cumulative")[29]
    assert own - fell == pytest.approx(-30 * 0.2 * 20000, rel=0.05)


def test_a_clipped_gradient_shrinks_the_update_correlation_by_the_factor():
    given = tables_of(walk(isotropic(1.0, 3, 1.0), 0.1, 30, clip_factor=0.25))
    assert_allclose(column("update_correlation", given, of="clipped"), column("update_correlation", given) / 4)


@pytest.mark.parametrize(("lr", "rate", "status"), [(0.9, 0, "HOLDS"), (1.1, 1, "FAILS")])
def test_full_batch_descent_falls_at_every_step_up_to_2_over_h_and_rises_beyond(lr, rate, status):
    given = tables_of(walk(isotropic(2.0, 2, start=1.0), lr, 150))
    assert_allclose(column("descent_rate", given, "next"), rate)
    assert verdict("descent_rate", "falls at every step", given, "next")["status"] == status


def test_a_loss_that_is_no_number_neither_rises_nor_falls():
    given = rows_of({"loss_x": [1.0, np.nan, np.inf, None, 3.0], "loss_y": [2.0, 1.0, 1.0, 1.0, 2.0]})
    table = measure(METRICS["descent_rate"], given).table["value"]
    assert table.to_list()[:1] + table.to_list()[3:] == [0.0, None, 1.0]
    assert table.is_nan().to_list()[1:3] == [True, True]


def test_the_allocation_is_exact_on_quadratics_and_off_by_a_twelfth_of_the_third_derivative_on_cubics():
    given = tables_of(walk(quadratic(np.diag([1.0, 3.0]), np.ones(2), 0.3), 0.1, 50))
    assert_allclose(column("loss_allocation", given), column("loss_change", given), atol=1e-14)
    points = np.random.default_rng(0).normal(size=40)
    cubic = tables_of(along(points, lambda x: x**3, lambda x: 3 * x**2))
    off = column("loss_change", cubic) - column("loss_allocation", cubic)
    assert_allclose(off, -(np.diff(points)[:-1] ** 3) / 2, atol=1e-12)


@pytest.mark.parametrize("name", ["loss_allocation", "descent_term", "update_correlation"])
def test_shares_of_the_blocks_add_up_to_the_model(name):
    given = tables(descend(logistic(3), 0.3, 30), blocks=3)
    found = values(METRICS[name], given).filter(pl.col("pairing").cast(pl.String) == "previous").collect()
    whole = found.filter(pl.col("block") == "model")["value"]
    parts = found.filter(pl.col("block") != "model").group_by("step", maintain_order=True).agg(pl.col("value").sum())
    assert len(whole) == 29
    assert_allclose(parts["value"], whole, atol=1e-15)


@pytest.mark.parametrize(("share", "status"), [(1.02, "HOLDS"), (1.2, "FAILS")])
def test_the_allocation_must_add_up_within_5_percent(share, status):
    change = -1 + 0.01 * np.random.default_rng(0).normal(size=300)
    products = {"loss_x": change, "loss_y": np.zeros(300), "gx_gx": np.ones(300), "gy_gy": np.ones(300)}
    given = rows_of({**products, "gx_d": 0.5 * share * change, "gy_d": 1.5 * share * change})
    assert verdict("loss_allocation", "adds up to the loss change", given)["status"] == status


def test_bouncing_between_two_walls_is_all_oscillation_and_a_straight_path_none():
    for problem, index, status in ((kink(0.1), 1, "FAILS"), (linear(), 0, "HOLDS")):
        given = tables_of(walk(problem, 0.3, 200))
        result = verdict("oscillation", "no more than noise", given)
        assert (result["status"], result["estimate"]) == (status, pytest.approx(index))
        assert_allclose(column("oscillation", given)[1:], index, atol=1e-12)
        assert_allclose(column("oscillation", given, of="ratio_so_far")[1:], index, atol=1e-12)


def test_gradients_that_point_the_same_way_do_not_alternate():
    given = tables_of(walk(isotropic(1.0, 5, 0.01, start=1.0), 1e-3, 200))
    assert verdict("cos_grad", "gradients alternate", given)["status"] == "FAILS"
    assert column("cos_grad", given, of="ratio_so_far")[-1] == pytest.approx(1, abs=0.02)


def test_on_a_kink_update_correlation_is_lr_in_either_pairing():
    given = tables_of(walk(kink(0.1), 0.3, 40))
    for pairing in ("previous", "next"):
        assert_allclose(column("update_correlation", given, pairing), 0.3)
        assert_allclose(column("descent_term", given, pairing), -0.3)


LAWS = {
    "Exp(1)": lambda r: r.exponential(),
    "U[0, 2]": lambda r: r.uniform(0, 2),
    "U[0, 1]": lambda r: r.uniform(0, 1),
}
RESIDUALS = {"Exp(1)": "value", "U[0, 2]": "uniform_0_2", "U[0, 1]": "uniform_0_1"}


def quantiles(law, n=20_000):
    u = (np.arange(n) + 0.5) / n
    return {"Exp(1)": -np.log1p(-u), "U[0, 2]": 2 * u, "U[0, 1]": u}[law]


@pytest.mark.parametrize("law", list(LAWS))
def test_the_random_scaling_identity_is_exact_for_its_law_on_a_kink_and_on_a_quadratic(law):
    s, x, step = quantiles(law), 0.7, 0.5
    for f, slope in ((np.abs, np.sign), (lambda v: v**2, lambda v: 2 * v)):
        to = x - s * step
        rows = {"loss_x": f(to), "loss_y": np.full_like(s, f(x)), "gx_d": slope(to) * (to - x), "scale_d": s}
        found = rows_of(rows)
        change = (f(to) - f(x)).mean()
        residuals = {name: column("random_scaling", found, of=of).mean() for name, of in RESIDUALS.items()}
        assert residuals.pop(law) == pytest.approx(0, abs=1e-3 * abs(change))
        assert min(map(abs, residuals.values())) > 0.05 * abs(change)
    if law == "Exp(1)":
        change = np.abs(x - s * step) - x
        assert change.mean() == pytest.approx(-step + 2 * step * np.exp(-x / step), rel=1e-4)


@pytest.mark.parametrize("law", list(LAWS))
def test_each_run_is_judged_by_the_law_of_its_own_scales(law):
    given = tables_of(walk(linear(), 0.1, 6000, scale=LAWS[law]))
    for pairing in ("previous", "next"):
        for other in LAWS:
            status = verdict("random_scaling", f"identity for {other}", given, pairing)["status"]
            assert status == ("HOLDS" if other == law else "NOT APPLICABLE")


def test_scales_of_another_law_fail_and_equal_scales_are_not_judged():
    wrong = tables_of(walk(linear(), 0.1, 6000, scale=lambda r: 1.3 * r.exponential()))
    assert verdict("random_scaling", "identity for Exp(1)", wrong)["status"] == "FAILS"
    equal = tables_of(walk(isotropic(1.0, 2, 0.1, start=1.0), 0.1, 200, scale=lambda _: 1.0))
    results = measure(METRICS["random_scaling"], equal).verdicts
    assert set(results["status"]) == {"NOT APPLICABLE"}
    assert_allclose(column("random_scaling", equal), column("convexity_gap", equal), atol=1e-15)


def test_without_random_scales_regret_and_identity_say_what_is_missing(resting):
    for name in ("random_scaling", "online_regret"):
        result = measure(METRICS[name], resting).verdicts.row(0, named=True)
        assert result["status"] == "NOT APPLICABLE"
        assert "random_scale=" in result["reason"]


def test_regret_is_to_the_best_fixed_step_of_the_mean_length():
    w = walk(isotropic(H, 6, 1.0, start=1.0), 0.1, 60, scale=lambda r: r.exponential())
    given = tables_of(w)
    g = np.array([w.problem.grad(w.x[t], w.z[t]) for t in range(60)])
    delta = np.diff(w.x, axis=0)[:-1] / np.array(w.records["random_scale"])[:-1, None]  # made x_1 to x_59
    linear_loss = np.cumsum((g[1:] * delta).sum(1))
    assert_allclose(column("online_regret", given, of="cumulative"), linear_loss)
    rho = np.cumsum(np.linalg.norm(delta, axis=1)) / np.arange(1, 60)
    best = -rho * np.linalg.norm(np.cumsum(g, axis=0), axis=1)[1:]
    assert_allclose(column("online_regret", given, of="best_fixed"), best)
    assert_allclose(column("online_regret", given, of="regret"), linear_loss - best)
    assert (linear_loss - best > 0).all()  # nobody beats the best step of hindsight by so much


def test_regret_begins_anew_after_a_gap():
    n = 30
    rows = {"gx_d": np.ones(n), "gsum_gsum": np.zeros(n), "scale_d": np.ones(n)}
    given = rows_of(rows)
    gapped = given.geometry.with_columns(step=pl.col("step") + 5 * (pl.col("step") > 10).cast(pl.Int64))
    found = column("online_regret", type(given)(gapped, given.path, given.steps, given.facts), of="regret")
    assert_allclose(found, [*range(1, 11), *range(1, 21)])


def by_hand_discounted(terms, beta=0.99):
    sums = [0.0]
    for term in terms:
        sums.append(beta * sums[-1] + term)
    return np.array(sums[1:])


def test_discounted_regret_is_the_sum_with_its_weights_and_stays_below_the_learners_guarantee():
    b, rate, n = 0.9, 0.05, 80
    w = walk(isotropic(H, 6, 3.0, start=1.0), rate, n, b, scale=lambda r: r.exponential())
    given = tables_of(w)
    g = np.array([w.problem.grad(w.x[t], w.z[t]) for t in range(1, n)])
    delta = np.diff(w.x, axis=0)[:-1] / np.array(w.records["random_scale"])[:-1, None]
    terms = (g * delta).sum(1) + (0.99 - b) / rate / 2 * (delta**2).sum(1)
    assert_allclose(column("discounted_regret", given), terms)
    found = column("discounted_regret", given, of="discounted")
    assert_allclose(found, by_hand_discounted(terms))
    assert_allclose(column("discounted_regret", given, of="discounted_linear"), by_hand_discounted((g * delta).sum(1)))
    guarantee = column("discounted_regret", given, of="guarantee")
    assert_allclose(guarantee, by_hand_discounted(rate / (2 * b) * (g**2).sum(1)))
    first = w.problem.grad(w.x[0], w.z[0])  # of the step before the first pair, made from Δ = 0
    assert (found <= guarantee + 0.99 ** np.arange(1, n) * rate / (2 * b) * (first @ first)).all()


def test_the_steps_of_sgd_with_momentum_are_those_of_the_papers_learner():
    b, rate, beta = 0.9, 0.05, 0.99
    w = walk(isotropic(H, 6, 1.0, start=1.0), rate, 40, b, scale=lambda r: r.exponential())
    eta, mu, delta = rate / b, (beta - b) / rate, np.zeros(6)
    for t in range(40):
        delta = beta / (1 + eta * mu) * (delta - eta * w.problem.grad(w.x[t], w.z[t]))
        assert_allclose((w.x[t + 1] - w.x[t]) / w.records["random_scale"][t], delta, rtol=1e-7, atol=1e-12)


def test_discounted_regret_tells_descent_from_noise_and_begins_anew_after_a_gap():
    claim = "no worse than standing still"
    falls = walk(isotropic(1.0, 50, 0.1, start=3.0), 0.0003, 400, 0.9, scale=lambda r: r.exponential())
    assert verdict("discounted_regret", claim, tables_of(falls))["status"] == "HOLDS"
    noise = walk(isotropic(0.0, 50, 1.0), 0.01, 400, 0.9, scale=lambda r: r.exponential())
    found = verdict("discounted_regret", claim, tables_of(noise))
    assert found["status"] == "FAILS"
    assert bias(found) == pytest.approx(found["estimate"], rel=0.3)
    rows = rows_of({"gx_d": np.ones(30), "scale_d": np.ones(30), "momentum": np.full(30, 0.99), "lr_d": np.ones(30)})
    gapped = rows.geometry.with_columns(step=pl.col("step") + 5 * (pl.col("step") > 10).cast(pl.Int64))
    found = column("discounted_regret", type(rows)(gapped, rows.path, rows.steps, rows.facts), of="discounted")
    assert_allclose(found, [(1 - 0.99**k) / 0.01 for k in (*range(1, 11), *range(1, 21))])


def test_without_momentum_there_is_no_learner_of_the_paper():
    w = walk(isotropic(H, 6, 1.0, start=1.0), 0.1, 60, scale=lambda r: r.exponential())
    found = measure(METRICS["discounted_regret"], tables_of(w)).verdicts.row(0, named=True)
    assert found["status"] == "NOT APPLICABLE"


def test_a_window_is_no_wider_than_its_bound_and_at_least_a_quarter_as_wide():
    w = walk(isotropic(0.01, 8, 1.0, start=5.0), 0.1, 250, seed=4)
    found = column("window_gradient", tables_of(w), of="radius_most")
    ends = np.flatnonzero(~np.isnan(found)) + 1
    assert ends.tolist() == [99, 199]
    for end in ends:
        points = w.x[end - 99 : end + 1]
        radius = np.linalg.norm(points - points.mean(axis=0), axis=1).max()
        assert found[end - 1] / 4 <= radius <= found[end - 1]
        away = np.linalg.norm(points - points[0], axis=1)
        assert found[end - 1] == pytest.approx(away.max() + away.mean())


def test_with_exponential_scales_linear_losses_say_whether_the_loss_falls():
    falls = walk(isotropic(1.0, 50, 0.1, start=3.0), 0.003, 400, scale=lambda r: r.exponential())
    assert verdict("online_regret", "no worse than standing still", tables_of(falls))["status"] == "HOLDS"
    rises = walk(isotropic(-1.0, 50, 0.1, start=3.0), -0.003, 400, scale=lambda r: r.exponential())
    assert verdict("online_regret", "no worse than standing still", tables_of(rises))["status"] == "FAILS"


def test_windows_of_100_steps_have_one_value_each_and_its_noise_floor():
    w = walk(isotropic(0.0, 500, 1.0), 0.0, 350, halves=halves_of(0.0), seed=2)
    given = tables_of(w)
    found = column("window_gradient", given)
    ends = np.flatnonzero(~np.isnan(found)) + 1  # rows begin at step 1
    assert ends.tolist() == [99, 199, 299]
    g = np.array([w.problem.grad(w.x[t], w.z[t]) for t in range(300)]).reshape(3, 100, -1)
    assert_allclose(found[ends - 1], np.linalg.norm(g.mean(1), axis=1))
    floor = column("window_gradient", given, of="noise_floor")[ends - 1]
    assert_allclose(floor, np.sqrt(500 / 100), rtol=0.02)
    assert_allclose(found[ends - 1], floor, rtol=0.1)  # noise alone
    assert bias(verdict("window_gradient", "does not grow", given)) == pytest.approx(floor[-1], rel=0.05)


def test_a_window_cut_by_a_gap_has_no_value():
    rows = {"wsum_wsum": [4e4, 4e4, 9e4], "wcount": [99, 100, 60], "wmove_wmove": [1.0] * 3}
    assert measure(METRICS["window_gradient"], rows_of(rows)).table["value"].to_list() == [None, 2.0, None]


def test_gradients_that_fall_are_stationary_and_those_that_rise_are_not():
    n = 260
    for slope, status in ((-1, "HOLDS"), (1, "FAILS")):
        norm = 10 + slope * np.repeat([0.0, 3.0], n // 2) + np.random.default_rng(0).normal(size=n)
        given = rows_of({"wsum_wsum": (100 * norm) ** 2, "wcount": np.full(n, 100), "gx_gx": norm**2})
        assert verdict("window_gradient", "does not grow", given)["status"] == status


def test_steps_uphill_promise_nothing():
    climbing = tables_of(walk(isotropic(1.0, 5, 0.1, start=2.0), -0.01, 200))
    assert verdict("descent_term", "downhill on average", climbing)["status"] == "FAILS"
    assert verdict("descent_term", "downhill on its own minibatch", climbing, "next")["status"] == "FAILS"
    assert verdict("progress_ratio", "promised progress comes", climbing)["status"] == "INCONCLUSIVE"


def test_less_than_a_convex_loss_allows_is_more_than_promised():
    down = Problem(lambda x, _: float(-x @ x / 2), lambda x, _: -x, np.ones(2))
    curved = verdict("progress_ratio", "no more than promised", tables_of(walk(down, 0.01, 200)))
    assert (curved["status"], curved["estimate"]) == ("FAILS", pytest.approx(1.005))
    straight = verdict(
        "progress_ratio", "no more than promised", tables_of(walk(isotropic(1.0, 2, start=1.0), 0.1, 200))
    )
    assert straight["status"] == "HOLDS"
