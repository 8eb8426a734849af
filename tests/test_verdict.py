"""The rules, from hand-made evidence."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from analysis.judging.verdict import FAILS, HOLDS, INCONCLUSIVE, NOT_APPLICABLE, Evidence, judge
from analysis.measure import measure
from analysis.metric import Claim
from analysis.registry import metrics
from tests.problems import descend, quadratic
from tests.tables_by_hand import tables

EVERY = Claim(at_most=0)
MEAN = Claim(at_most=0, over="on average")
TREND = Claim(at_most=0, over="trend")
NOISE = np.random.default_rng(0).normal(size=1000)


def evidence(quantity, tolerance=1e-9, missing=(), standstill=()):
    quantity = np.array(quantity, dtype=float)
    flags = np.zeros((2, len(quantity)), bool)
    flags[0, list(missing)], flags[1, list(standstill)] = True, True
    quantity[list(missing)] = np.nan
    steps = np.arange(1, len(quantity) + 1)
    return Evidence(steps, quantity, np.broadcast_to(tolerance, quantity.shape), *flags)


def test_every_step_holds_where_all_are_within_the_bound():
    finding = judge(EVERY, evidence(-np.ones(100)))
    assert finding.status == HOLDS
    assert "on this trace" in finding.reason
    assert (finding.pairs, finding.violations, finding.worst) == (100, 0, -1)


def test_every_step_fails_on_one_violation_and_names_count_worst_and_step():
    values = -np.ones(100)
    values[[10, 40]] = 1e-6, 3e-6
    finding = judge(EVERY, evidence(values))
    assert finding.status == FAILS
    assert (finding.violations, finding.worst, finding.worst_step) == (2, 3e-6, 41)
    assert "2 of 100" in finding.reason
    assert "step 41" in finding.reason
    assert "3e+03 times the tolerance" in finding.reason


def test_worst_is_the_largest_in_tolerances_not_the_largest():
    tolerance = np.full(100, 1e-9)
    tolerance[5] = 0.5
    values = -np.ones(100)
    values[5], values[6] = 1.0, 1e-3
    assert judge(EVERY, evidence(values, tolerance)).worst_step == 7


def test_a_violation_within_rounding_is_no_violation():
    values = -np.ones(100)
    values[10] = 0.9e-9
    assert judge(EVERY, evidence(values)).status == HOLDS


def test_every_step_is_inconclusive_where_rounding_hides_more_than_5_in_100():
    values = -np.ones(100)
    values[:6] = -1e-12
    finding = judge(EVERY, evidence(values))
    assert finding.status == INCONCLUSIVE
    assert "numerics: only 94 of 100" in finding.reason
    values[:1] = -1
    assert judge(EVERY, evidence(values)).status == HOLDS


def test_missing_pairs_count_as_unresolved():
    finding = judge(EVERY, evidence(-np.ones(100), missing=range(6)))
    assert finding.status == INCONCLUSIVE
    assert (finding.pairs, finding.missing, finding.undefined) == (94, 6, 0)
    assert "6 pairs were not measured" in finding.reason


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("claim", [EVERY, MEAN, TREND])
def test_one_undefined_value_keeps_any_claim_from_holding_and_is_said(claim, bad):
    values = NOISE - np.linspace(5, 8, 1000)
    assert judge(claim, evidence(values)).status == HOLDS
    values[700] = bad
    finding = judge(claim, evidence(values))
    assert finding.status == INCONCLUSIVE
    assert finding.undefined == 1
    assert "step 701" in finding.reason
    assert np.isfinite([finding.estimate, finding.lower, finding.upper, finding.worst]).all()


def test_a_violation_stands_although_the_run_diverged_later():
    values = -np.ones(100)
    values[3], values[90:] = 1, np.nan
    assert judge(EVERY, evidence(values)).status == FAILS


def test_a_step_that_stands_still_has_no_ratio_and_blocks_nothing():
    values = -np.ones(100)
    values[0] = np.nan
    finding = judge(EVERY, evidence(values, standstill=[0]))
    assert finding.status == HOLDS
    assert finding.undefined == 1
    assert "stand still" in finding.reason


def test_at_least_is_the_mirror_of_at_most():
    claim = Claim(at_least=1)
    assert judge(claim, evidence(np.full(50, 2.0))).status == HOLDS
    finding = judge(claim, evidence(np.r_[np.full(49, 2.0), 0.5]))
    assert (finding.status, finding.worst, finding.worst_step) == (FAILS, 0.5, 50)
    mean = Claim(at_least=1, over="on average")
    assert judge(mean, evidence(2 + NOISE)).status == HOLDS
    assert judge(mean, evidence(NOISE)).status == FAILS


@pytest.mark.parametrize(("shift", "status"), [(-1, HOLDS), (1, FAILS), (0, INCONCLUSIVE)])
def test_mean_is_decided_by_its_interval(shift, status):
    values = NOISE - NOISE.mean() + shift
    finding = judge(MEAN, evidence(values))
    assert finding.status == status
    assert finding.lower < shift < finding.upper
    assert finding.effective_samples >= 30


def test_single_values_beyond_the_bound_do_not_fail_a_mean():
    finding = judge(MEAN, evidence(NOISE - 1))
    assert finding.violations > 100
    assert finding.status == HOLDS


def test_mean_within_rounding_of_the_bound_is_inconclusive():
    finding = judge(MEAN, evidence(1e-12 * (1 + NOISE)))
    assert finding.status == INCONCLUSIVE
    assert "numerics" in finding.reason


def test_dependent_values_with_few_effective_samples_are_inconclusive_with_numbers():
    wave = np.sin(np.linspace(0, 8, 400))
    finding = judge(MEAN, evidence(wave - 0.9))
    assert finding.status == INCONCLUSIVE
    assert "too few effective samples" in finding.reason
    assert finding.upper < 0


@pytest.mark.parametrize(("shift", "status"), [(-2, HOLDS), (2, FAILS)])
def test_dependent_values_all_on_one_side_decide_their_mean(shift, status):
    finding = judge(MEAN, evidence(np.sin(np.linspace(0, 8, 400)) + shift))
    assert finding.status == status
    assert "all 400 values" in finding.reason
    assert finding.effective_samples < 30


def test_a_heavy_tail_on_one_side_decides_its_mean_although_the_interval_contains_the_bound():
    values = np.where(np.arange(1000) < 20, -100.0, -0.01)  # nearly all of the mean is in the first steps
    finding = judge(MEAN, evidence(values))
    assert finding.upper > 0
    assert (finding.status, finding.violations) == (HOLDS, 0)
    values[500] = 0.02
    assert judge(MEAN, evidence(values)).status == INCONCLUSIVE


def test_trend_fails_where_the_second_half_is_higher():
    assert judge(TREND, evidence(NOISE + np.linspace(0, 3, 1000))).status == FAILS
    assert judge(TREND, evidence(NOISE - np.linspace(0, 3, 1000))).status == HOLDS
    flat = NOISE - NOISE.mean()
    flat[:500] -= flat[:500].mean()
    flat[500:] -= flat[500:].mean()
    assert judge(TREND, evidence(flat)).status == INCONCLUSIVE


@pytest.mark.parametrize("n", [0, 1, 2, 3, 29])
@pytest.mark.parametrize("claim", [EVERY, MEAN, TREND])
def test_short_runs_never_hold(claim, n):
    finding = judge(claim, evidence(-np.ones(n)))
    assert finding.status == INCONCLUSIVE
    assert finding.pairs == n
    assert n == 0 or finding.worst == -1


def test_what_is_not_applicable_keeps_its_numbers():
    finding = judge(MEAN, evidence(NOISE + 5), not_applicable="different minibatches")
    assert (finding.status, finding.reason) == (NOT_APPLICABLE, "different minibatches")
    assert finding.lower > 4


def test_a_run_without_any_defined_value_is_inconclusive():
    finding = judge(MEAN, evidence(np.full(50, np.nan)))
    assert finding.status == INCONCLUSIVE
    assert "none of 50" in finding.reason


def test_a_tolerance_that_is_not_known_resolves_nothing():
    finding = judge(EVERY, evidence(-np.ones(100), tolerance=np.nan))
    assert finding.status == INCONCLUSIVE
    assert "only 0 of 100" in finding.reason


@pytest.mark.parametrize(
    ("metric", "recorded", "says"),
    [
        ("convexity_gap", {}, 'no look-ahead probe was recorded; record with probes=["look_ahead"]'),
        ("smoothness", {}, 'no look-ahead probe was recorded; record with probes=["look_ahead"]'),
        ("convexity_gap", {"losses": False}, "no loss was recorded; hand the loss to the tracer"),
    ],
)
def test_an_in_sample_pair_without_a_probe_says_what_to_record(metric, recorded, says):
    run = descend(quadratic(np.eye(2), np.ones(2)), 0.1, 40)
    given = tables(run, **recorded, pairings=("previous", "next"))
    verdicts = measure(metrics()[metric], given).verdicts.filter(pairing="next")
    assert set(verdicts["status"]) == {NOT_APPLICABLE}
    reasons = [reason for reason in verdicts["reason"] if not reason.startswith("in-sample")]  # a claim about F
    assert reasons
    for reason in reasons:
        assert says in reason
        assert "it is missing at every step" not in reason


SHARE = Claim(at_most=0.5, over="share")
ENVELOPE = Claim(at_most=2, over="envelope", at_quantile=0.99, regressors=(pl.col("d_d"),))


def test_a_share_does_not_hold_where_rounding_may_hide_the_steps_that_count():
    level = 1 + 0.1 * np.abs(NOISE)
    hidden, seen = evidence(level, 2.0), evidence(-level, 1e-3)
    finding = judge(SHARE, hidden)
    assert finding.status == INCONCLUSIVE
    assert "numerics: 100 % of the steps are within rounding of zero" in finding.reason
    assert judge(SHARE, seen).status == HOLDS
    assert judge(SHARE, evidence(level, 1e-3)).status == FAILS
    few = np.where(np.arange(1000) % 10 == 0, level, -level)  # a tenth may be above: less than one half either way
    assert judge(SHARE, evidence(few, np.where(few > 0, 2.0, 1e-3))).status == HOLDS
    known = np.where(np.arange(1000) % 10 < 7, level, 1e-9)  # seven in ten are above whatever the others are
    assert judge(SHARE, evidence(known, 1e-3)).status == FAILS


def test_a_share_of_zeros_without_rounding_holds():
    assert judge(SHARE, evidence(np.zeros(1000), 0.0)).status == HOLDS


def above_one(rises, tolerance):
    """Values of a loss at most 1 · d_d in the first half, ``rises`` times that in the second."""
    random = np.random.default_rng(1)
    half = np.concatenate([np.ones(2000), np.full(2000, rises)])
    given = evidence(half * random.uniform(0.5, 1, 4000), tolerance)
    return replace(given, regressors=np.ones((4000, 1)))


def test_an_envelope_does_not_hold_where_rounding_is_as_coarse_as_itself():
    finding = judge(ENVELOPE, above_one(10, 100.0))
    assert finding.status == INCONCLUSIVE
    assert "numerics: 100 % of the steps" in finding.reason
    assert judge(ENVELOPE, above_one(10, 1e-3)).status == FAILS
    assert judge(ENVELOPE, above_one(1, 1e-3)).status == HOLDS


def test_an_envelope_that_every_value_lies_on_holds():
    """What is smooth with one constant lies on its envelope; a fine rounding hides nothing there."""
    given = evidence(np.ones(4000), 1e-6)
    assert judge(ENVELOPE, replace(given, regressors=np.ones((4000, 1)))).status == HOLDS


def test_an_undefined_value_of_finite_numbers_is_not_called_divergence():
    """0/0 is no number, and the run is sound: the hinge loss has minibatches with neither loss nor gradient."""
    values = -np.ones(200)
    values[7] = np.nan
    given = evidence(values)
    sound = np.ones(200, bool)
    for claim in (EVERY, MEAN):
        assert "the run diverged" in judge(claim, given).reason
        finding = judge(claim, replace(given, sound=sound))
        assert finding.status == INCONCLUSIVE
        assert "0/0 or the root of a negative number" in finding.reason
        assert "diverged" in judge(claim, replace(given, sound=np.arange(200) != 7)).reason
