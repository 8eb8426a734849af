"""Intervals of dependent values."""

import numpy as np
import pytest
from scipy.signal import lfilter

from analysis.judging.statistics import mean_interval, trend_interval


def autoregressive(phi, n, runs, seed):
    """``runs`` stationary first-order autoregressive series, shape (runs, n), mean 0."""
    noise = np.random.default_rng(seed).normal(size=(runs, n))
    noise[:, 0] /= np.sqrt(1 - phi**2)
    return lfilter([1.0], [1.0, -phi], noise, axis=1)


def test_interval_covers_the_mean_of_an_autoregressive_series_about_95_times_in_100():
    intervals = [mean_interval(row) for row in autoregressive(0.8, 4000, 400, seed=41)]
    covered = np.mean([i.lower <= 0 <= i.upper for i in intervals])
    assert covered == pytest.approx(0.95, abs=0.035)


def test_interval_is_three_times_as_wide_as_that_of_independent_values():
    phi, n = 0.8, 4000
    rows = autoregressive(phi, n, 200, seed=7)
    half = np.mean([i.upper - i.lower for i in map(mean_interval, rows)]) / 2
    independent = 1.96 * rows.std() / np.sqrt(n)
    assert half / independent == pytest.approx(np.sqrt((1 + phi) / (1 - phi)), rel=0.12)


def test_effective_samples_are_a_ninth_of_the_values_at_correlation_0_8():
    found = np.median([mean_interval(row).effective_samples for row in autoregressive(0.8, 4000, 200, seed=5)])
    assert found == pytest.approx(4000 / 9, rel=0.15)


def test_effective_samples_of_independent_values_are_all_of_them():
    rows = np.random.default_rng(3).normal(size=(200, 4000))
    assert np.median([mean_interval(row).effective_samples for row in rows]) == pytest.approx(4000, rel=0.1)


def test_slow_drift_of_the_mean_is_not_counted_as_noise():
    noise = np.random.default_rng(9).normal(size=4000)
    drifting = noise + np.linspace(-2, 2, 4000)
    plain, drift = mean_interval(noise), mean_interval(drifting)
    as_one_sample = 2 * 2.02 * drifting.reshape(40, 100).mean(axis=1).std(ddof=1) / np.sqrt(40)
    assert drift.upper - drift.lower < 2 * (plain.upper - plain.lower)
    assert as_one_sample > 5 * (drift.upper - drift.lower)


def test_constant_values_have_an_interval_of_no_width():
    interval = mean_interval(np.full(300, 2.5))
    assert (interval.estimate, interval.lower, interval.upper) == (2.5, 2.5, 2.5)


def test_interval_scales_with_its_values():
    row = autoregressive(0.5, 1000, 1, seed=2)[0]
    one, many = mean_interval(row), mean_interval(-1e6 * row)
    assert (many.upper, many.lower) == (pytest.approx(-1e6 * one.lower), pytest.approx(-1e6 * one.upper))
    assert many.effective_samples == pytest.approx(one.effective_samples)


def test_values_whose_squares_overflow_still_have_an_interval():
    interval = mean_interval(1e300 * np.random.default_rng(1).normal(size=400))
    assert np.isfinite([interval.lower, interval.upper]).all()


def test_trend_of_a_line_is_half_its_rise_and_of_stationary_noise_covers_zero():
    noise = autoregressive(0.5, 4000, 200, seed=11)
    rising = trend_interval(noise[0] + np.linspace(0, 10, 4000))
    assert rising.estimate == pytest.approx(5, abs=0.3)
    assert rising.lower > 0
    flat = [trend_interval(row) for row in noise]
    assert np.mean([i.lower <= 0 <= i.upper for i in flat]) == pytest.approx(0.95, abs=0.045)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 19, 99])
def test_few_values_give_a_number_and_a_reason_against_a_verdict(n):
    values = np.arange(n, dtype=float)
    interval = mean_interval(values)
    assert interval.shortfall is not None
    assert str(n) in interval.shortfall
    if n > 0:
        assert interval.estimate == pytest.approx(values.mean())
    if n > 1:
        assert interval.lower < interval.estimate < interval.upper


def test_dependence_that_outlasts_the_batches_carries_no_verdict():
    rows = autoregressive(0.9, 400, 200, seed=4)
    assert all(mean_interval(row).shortfall for row in rows)
    assert any("too many for batches of 20" in mean_interval(row).shortfall for row in rows)
    assert all(trend_interval(row).shortfall for row in rows)


@pytest.mark.parametrize("phi", [0, 0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("n", [100, 400, 1000])
def test_a_wrong_sign_is_declared_seldom_at_any_length_and_dependence(phi, n):
    intervals = [mean_interval(row) for row in autoregressive(phi, n, 300, seed=1)]
    assert np.mean([not i.shortfall and not i.lower <= 0 <= i.upper for i in intervals]) < 0.1


def test_a_smooth_noiseless_curve_has_an_interval_that_holds_its_mean():
    curve = -np.exp(-np.arange(400) / 150)
    interval = mean_interval(curve)
    assert interval.lower < curve.mean() < interval.upper < 0
    assert interval.effective_samples < 30  # smoothness is not independence
