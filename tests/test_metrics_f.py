"""Metrics of noise, on half batches whose distribution is known."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from numpy.testing import assert_allclose

from tests.problems import Problem
from tests.walks import METRICS, of, tables_of, verdict, walk

pytestmark = pytest.mark.usefixtures("path_taken")

MEAN, VARIANCE, EXAMPLES = np.array([0.6, -0.3, 0.15]), np.array([1.0, 2.0, 0.5]), 8
SIGNAL, NOISE = float(MEAN @ MEAN), float(VARIANCE.sum()) / (2 * EXAMPLES)  # of a minibatch of twice 8 examples


def halved(steps, scale=lambda t: 1.0, signal=lambda t: 1.0, mean=MEAN, seed=0, loss=1.0):
    """A path on which step t has the gradient ``signal(t)·mean`` plus noise of ``scale(t)``, in two halves."""
    random = np.random.default_rng(seed)
    spread = np.sqrt(VARIANCE / EXAMPLES)
    halves = [
        [signal(t) * mean + scale(t) * random.normal(size=3) * spread for _ in range(2)] for t in range(steps + 1)
    ]
    z = [np.array([t], float) for t in range(steps)]
    problem = Problem(f=lambda x, z: loss, grad=lambda x, z: sum(halves[int(z[0])]) / 2, start=np.zeros(3))
    return tables_of(problem, np.zeros((steps + 1, 3)), z, halves=lambda _, z: halves[int(z[0])])


def test_halves_estimate_the_squared_gradient_norm_and_the_variance_of_the_minibatch():
    given = halved(4000)
    assert of("gradient_norm_squared", given).mean() == pytest.approx(SIGNAL, rel=0.05)
    assert of("gradient_noise", given).mean() == pytest.approx(NOISE, rel=0.02)
    assert of("noise_scale", given, column="cumulative_ratio")[-1] == pytest.approx(NOISE / SIGNAL, rel=0.05)
    assert of("strong_growth", given, column="cumulative_ratio")[-1] == pytest.approx(1 + NOISE / SIGNAL, rel=0.05)
    for name, claim, want in (
        ("noise_scale", "below one minibatch", NOISE / SIGNAL),
        ("snr", "not noise alone", SIGNAL / (SIGNAL + NOISE)),
    ):
        assert verdict(name, claim, given)["estimate"] == pytest.approx(want, rel=0.05)
    assert verdict("noise_scale", "below one minibatch", given)["status"] == "HOLDS"
    assert verdict("snr", "not noise alone", given)["status"] == "HOLDS"


def test_the_energy_of_a_minibatch_gradient_is_signal_plus_noise_at_every_step():
    given = halved(50)
    energy = given.geometry.filter(pairing="previous", block="model").collect()["gx_gx"].to_numpy()
    assert_allclose(of("gradient_norm_squared", given) + of("gradient_noise", given), energy, rtol=1e-12)
    snr, growth, scale = of("snr", given), of("strong_growth", given), of("noise_scale", given)
    assert_allclose(snr * growth, 1, rtol=1e-9)
    assert_allclose(growth, 1 + scale, rtol=1e-9)
    assert_allclose(of("gradient_diversity", given), 1 - snr / 2, rtol=1e-9)


def test_equal_halves_are_all_signal():
    same = halved(5, scale=lambda t: 0.0)
    assert_allclose(of("snr", same), 1)
    assert_allclose(of("noise_scale", same), 0, atol=1e-15)
    assert_allclose(of("gradient_diversity", same), 0.5)


def test_a_gradient_that_grows_fails_and_one_that_falls_holds_whatever_the_noise():
    for slope, status in ((1.0, "FAILS"), (-1.0, "HOLDS")):
        given = halved(2000, signal=lambda t, s=slope: 2 + s * (t / 1000 - 1))
        assert verdict("gradient_norm_squared", "does not grow", given)["status"] == status
    louder = halved(2000, scale=lambda t: 1 + t / 1000)
    assert verdict("gradient_norm_squared", "does not grow", louder)["status"] == "INCONCLUSIVE"
    assert verdict("gradient_noise", "does not keep growing", louder)["status"] == "FAILS"
    quieter = halved(2000, scale=lambda t: 2 - t / 2000)
    assert verdict("gradient_noise", "does not keep growing", quieter)["status"] == "HOLDS"


def test_a_minibatch_smaller_than_the_noise_scale_fails():
    given = halved(2000, scale=lambda t: 3.0)
    assert verdict("noise_scale", "below one minibatch", given)["status"] == "FAILS"


def test_noise_alone_is_not_taken_for_signal():
    given = halved(2000, signal=lambda t: 0.0)
    assert verdict("snr", "not noise alone", given)["status"] == "INCONCLUSIVE"


def test_noise_in_proportion_to_the_gradient_obeys_relaxed_growth_and_noise_that_breaks_out_does_not():
    shrinking = halved(2000, scale=lambda t: np.exp(-t / 1000), signal=lambda t: 10 * np.exp(-t / 1000))
    claim = "relaxed growth, fitted on the first half"
    assert verdict("strong_growth", claim, shrinking)["status"] == "HOLDS"
    breaking = halved(2000, scale=lambda t: 1.0 if t < 1000 else 6.0, signal=lambda t: 0.0)
    assert verdict("strong_growth", claim, breaking)["status"] == "FAILS"


def test_without_half_batches_noise_is_not_applicable_and_the_reason_says_how_to_record_them():
    given = halved(50)
    bare = type(given)(given.geometry, given.path.drop("ga_gb", "ga_ga", "gb_gb"), given.steps, given.facts)
    for name in ("gradient_norm_squared", "gradient_noise", "noise_scale", "snr", "strong_growth"):
        found = verdict(name, METRICS[name].claims[0].name, bare)
        assert found["status"] == "NOT APPLICABLE"
        assert 'probes=["half_batches"]' in found["reason"]


DESIGN = np.random.default_rng(8).normal(size=(12, 20))  # more numbers than examples: one point fits them all


def least_squares(labels, smallest=0.0, steps=120):
    """Minibatches of four examples ``smallest + (aᵀx − b)²/2``; the reference is the point that fits ``labels``."""
    fits = np.linalg.lstsq(DESIGN, labels, rcond=None)[0]
    problem = Problem(
        f=lambda x, z: smallest + float(((DESIGN[z.astype(int)] @ (x - fits)) ** 2).mean() / 2),
        grad=lambda x, z: DESIGN[z.astype(int)].T @ (DESIGN[z.astype(int)] @ (x - fits)) / len(z),
        start=np.zeros(20),
        draw=lambda random: random.integers(0, 12, 4).astype(float),
    )
    return problem, fits, *walk(problem, 0.02, steps)


CLAIMS = ("small on every minibatch", "small on 95 % of the minibatches", "gradients vanish there")


def statuses(given, name="run:fits"):
    return [verdict("interpolation", claim, given, f"reference:{name}")["status"] for claim in CLAIMS]


def test_a_point_that_fits_every_example_interpolates_and_the_start_does_not():
    problem, fits, x, z = least_squares(np.random.default_rng(9).normal(size=12))
    given = tables_of(problem, x, z, {"run:fits": fits, "initial": x[0]})
    assert_allclose(of("interpolation", given, "reference:run:fits"), 0, atol=1e-20)
    assert statuses(given) == ["HOLDS", "HOLDS", "HOLDS"]
    at_start = np.array([problem.f(x[0], batch) for batch in z])
    assert_allclose(of("interpolation", given, "reference:initial"), at_start)
    begun = np.mean([problem.f(x[t], z[t]) for t in range(10)])
    assert_allclose(of("interpolation", given, "reference:initial", "share_of_start"), at_start / begun)
    along = sum(problem.f(*pair) for pair in zip(x, z, strict=False))
    found = of("interpolation", given, "reference:initial", "share_so_far")[-1]
    assert found == pytest.approx(at_start.sum() / along)
    assert statuses(given, "initial") == ["FAILS", "FAILS", "FAILS"]


def test_one_example_that_does_not_fit_is_seen_on_its_minibatches_alone():
    random = np.random.default_rng(3)
    z = [random.integers(0, 12, 4).astype(float) if t % 50 else np.zeros(4) for t in range(1, 601)]
    problem = Problem(
        f=lambda x, z: float(x @ x / 2 + 10 * (z == 0).all()),
        grad=lambda x, z: x,
        start=np.full(2, 3.0),
    )
    given = tables_of(problem, np.array([problem.start * 0.99**t for t in range(601)]), z, {"run:fits": np.zeros(2)})
    assert statuses(given) == ["FAILS", "HOLDS", "HOLDS"]
    assert verdict("interpolation", CLAIMS[0], given, "reference:run:fits")["violations"] == 12


def test_a_loss_that_cannot_reach_0_fails_and_its_gradients_tell_that_one_point_minimises_all():
    problem, fits, x, z = least_squares(np.random.default_rng(9).normal(size=12), smallest=0.3)
    given = tables_of(problem, x, z, {"run:fits": fits})
    assert_allclose(of("interpolation", given, "reference:run:fits"), 0.3)
    assert statuses(given) == ["FAILS", "FAILS", "HOLDS"]


def test_a_loss_far_below_0_is_not_taken_for_a_small_one():
    problem, fits, x, z = least_squares(np.random.default_rng(9).normal(size=12), smallest=-0.2)
    assert statuses(tables_of(problem, x, z, {"run:fits": fits}))[:2] == ["FAILS", "FAILS"]


def test_without_a_replay_interpolation_is_not_applicable_and_the_reason_names_the_command():
    problem, fits, x, z = least_squares(np.random.default_rng(9).normal(size=12))
    given = tables_of(problem, x, z, {"last": fits})
    bare = replace(given, geometry=given.geometry.with_columns(pl.lit(None, pl.Float64).alias("loss_y")))
    found = verdict("interpolation", CLAIMS[0], bare, "reference:last")
    assert found["status"] == "NOT APPLICABLE"
    assert "lemmata replay" in found["reason"]
    assert "--references last" in found["reason"]
