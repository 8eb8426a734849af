"""The curve that convex theory draws from a schedule of learning rates, and what is said of a loss beside it."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import spearmanr

from analysis.measure import measure
from analysis.rates import EXACT, fitted, of_schedule
from analysis.registry import metrics
from tests.tables_by_hand import geometry_tables

METRIC, RANKS = metrics()["convex_dominance"], metrics()["bound_rank"]
SCHEDULES = {
    "constant": lambda n: np.full(n, 0.03),
    "linear": lambda n: 0.03 * (1 - np.arange(n) / n),
    "cosine": lambda n: 0.03 * 0.5 * (1 + np.cos(np.pi * np.arange(n) / n)),
    "warm-up from 0": lambda n: 0.03 * np.minimum(np.arange(n) / 10, 1),
}


def rest_of_the_bound(rate):
    """As the theorem has it, term by term."""
    total = rate.sum()
    found = (rate**2).sum() / (2 * total)
    for k in range(len(rate) - 1):
        if rate[k] and rate[k + 1 :].sum():
            found += rate[k] / rate[k + 1 :].sum() * (rate[k:] ** 2).sum() / rate[k:].sum() / 2
    return found


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_it_is_the_theorems_at_every_step(schedule):
    rate = SCHEDULES[schedule](60)
    first, second = of_schedule(rate)
    for t in (1, 2, 7, 59):
        assert first[t] == pytest.approx(1 / (2 * rate[: t + 1].sum()))
        assert second[t] == pytest.approx(rest_of_the_bound(rate[: t + 1]), rel=1e-10)


def test_at_a_constant_rate_it_is_harmonic_also_of_a_long_run():
    n, lr = 3 * EXACT, 0.01
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, n))])
    assert_allclose(of_schedule(np.full(n, lr))[1], lr * (1 + harmonic) / 2, rtol=2e-3)


def test_the_three_numbers_of_a_curve_are_found_and_none_of_a_short_run():
    first, second = of_schedule(np.full(200, 0.05))
    loss = 0.3 + 2 * first + 4 * second
    a, b, curve = fitted(loss, first, second)
    assert_allclose(curve, loss, rtol=1e-9)
    assert (a, b) == (pytest.approx(2), pytest.approx(4))
    assert np.isnan(fitted(loss[:30], first[:30], second[:30])[2]).all()


def cosine(change, noise=0.01, n=1200):
    """Losses of a cosine schedule that theory draws with D = 1 and G = √40, changed by ``change`` of a time −1 … 1."""
    rate = SCHEDULES["cosine"](n)
    first, second = of_schedule(rate)
    random = np.random.default_rng(0)
    return 0.3 + first + 40 * second + change(np.linspace(-1, 1, n)) + noise * random.normal(size=n), rate


def measured(loss, rate, metric=METRIC):
    return measure(metric, geometry_tables({"loss_x": loss[1:], "loss_y": loss[1:]}, {"loss": loss, "lr": rate}))


def verdict(*change, metric=METRIC, **noise):
    (found,) = measured(*cosine(*change, **noise), metric).verdicts.filter(pairing="previous").to_dicts()
    return found


def test_a_curve_that_theory_draws_goes_on_and_one_that_jumps_does_not():
    as_drawn = verdict(lambda at: 0 * at)
    assert as_drawn["status"] == "HOLDS"
    assert as_drawn["upper"] < 0.05  # 1 − R²
    jumped = verdict(lambda at: (at > 0).astype(float))
    assert (jumped["status"], jumped["lower"] > 0.5) == ("FAILS", True)
    drifting = verdict(lambda at: np.maximum(at, 0))  # hundreds of steps, and yet one departure
    assert (drifting["status"], drifting["estimate"] > 1) == ("INCONCLUSIVE", True)


def test_a_loss_that_stands_still_but_for_its_noise_decides_nothing():
    flat = verdict(lambda at: 0 * at, noise=3.0)
    assert flat["status"] == "NOT APPLICABLE"
    assert "moves no more than minibatches differ" in flat["reason"]


def test_without_rates_it_is_not_applicable():
    given = geometry_tables({"loss_x": np.ones(40), "loss_y": np.ones(40)}, {"lr": [None] * 41})
    for metric in (METRIC, RANKS):
        for row in measure(metric, given).verdicts.to_dicts():
            assert row["status"] == "NOT APPLICABLE"


def test_the_mean_of_rank_products_is_spearmans_correlation_with_ties_and_all():
    loss, rate = cosine(lambda at: 0 * at, noise=0.1)
    loss = loss.round(2)
    first, second = of_schedule(rate)
    curve = fitted(loss, first, second)[2]
    found = measured(loss, rate, RANKS).verdicts.row(0, named=True)
    assert found["estimate"] == pytest.approx(spearmanr(loss[1:], curve[1:]).statistic, rel=1e-9)
    assert found["status"] == "HOLDS"


def test_the_fitted_distance_and_gradient_are_those_that_drew_the_loss():
    table = measured(*cosine(lambda at: 0 * at, noise=0), RANKS).table
    assert_allclose(table["d_of_the_fit"], 1, rtol=1e-6)
    assert_allclose(table["g_of_the_fit"], np.sqrt(40), rtol=1e-6)


def test_a_loss_that_rises_while_the_bound_falls_is_against_the_order_of_the_bound():
    assert verdict(lambda at: 0 * at, metric=RANKS, noise=0.1)["status"] == "HOLDS"
    rising = verdict(lambda at: np.where(at > 0, 100 * (1 + at), 0), metric=RANKS, noise=0.1)
    assert (rising["status"], rising["estimate"] < 0) == ("FAILS", True)


def test_of_a_loss_that_rises_from_the_start_nothing_is_said_for_its_bound_rises_too():
    loss = np.linspace(1, 2, 400)
    (found,) = measured(loss, np.full(400, 0.1), RANKS).verdicts.filter(pairing="previous").to_dicts()
    assert found["status"] == "NOT APPLICABLE"
    assert "the fitted curve does not fall" in found["reason"]
