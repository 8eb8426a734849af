"""What noise does to a reference made of the run, against a population known exactly."""

import numpy as np
import pytest

from tests.problems import Problem, quadratic
from tests.walks import of, tables_of, verdict, walk


def noisy(scale, hessian, start, copies):
    """Independent copies of a noisy quadratic, side by side in one long vector: their sums are expectations."""
    h, s, x = (np.tile(v, copies) for v in (hessian, scale, start))
    return Problem(
        f=lambda at, z: float((h * at * at / 2 + z * at).sum()),
        grad=lambda at, z: h * at + z,
        start=x.copy(),
        draw=lambda random: random.normal(size=len(x)) * s,
    )


def split(problem, spread, seed=9):
    random = np.random.default_rng(seed)

    def halves(at, z):
        other = random.normal(size=len(at)) * spread
        return problem.grad(at, z + other), problem.grad(at, z - other)

    return halves


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_noise_alone_gives_the_slope_to_the_last_point_the_null_numerator(momentum):
    lr, copies, steps = 0.2, 3000, 40
    problem = noisy(np.sqrt([1.0, 0.5, 0.2]), np.zeros(3), np.zeros(3), copies)
    x, z = walk(problem, lr, steps, momentum)
    spread = np.tile(np.sqrt([1.0, 0.5, 0.2]), copies)
    given = tables_of(problem, x, z, lr=lr, halves=split(problem, spread), records={"momentum": momentum})
    found = verdict("convexity_ratio", "at least 0", given, "reference:last")
    memory = sum((1 - momentum**k) / (1 - momentum) for k in range(1, steps + 1))
    assert found["null_numerator"] == pytest.approx(lr * copies * 1.7 * memory, rel=0.02)
    slope = of("reference_slope", given, "reference:last", "cumulative")[-1]
    assert slope == pytest.approx(found["null_numerator"], rel=0.05)
    bias = verdict("reference_slope", "descent directions lead there on average", given, "reference:last")["biases"]
    assert float(bias.split()[1]) == pytest.approx(found["null_numerator"] / steps, rel=0.05)


def test_a_reference_made_without_the_run_has_no_null_numerator():
    problem = noisy(np.ones(3), np.zeros(3), np.zeros(3), 100)
    x, z = walk(problem, 0.2, 40)
    given = tables_of(problem, x, z, {"initial": x[0], "run:other": x[0] + 1}, halves=split(problem, np.ones(300)))
    for name in ("initial", "run:other"):
        assert verdict("convexity_ratio", "at least 0", given, f"reference:{name}")["null_numerator"] == 0


def test_without_half_batches_the_bias_of_the_reference_is_not_known():
    problem = noisy(np.ones(3), np.ones(3), np.ones(3), 10)
    x, z = walk(problem, 0.2, 100)
    found = verdict("convexity_ratio", "at least 1", tables_of(problem, x, z), "reference:last")
    assert found["null_numerator"] is None
    assert found["biases"].count("not known") == 2


def test_a_paired_reference_loss_pulls_the_ratio_to_one_and_a_frozen_one_inflates_it():
    lr, copies = 0.2, 4000
    problem = noisy(np.sqrt([1.0, 0.5, 0.2]), np.array([0.3, 1.0, 2.5]), np.array([1.0, -1.0, 0.5]), copies)
    x, z = walk(problem, lr, 40, seed=3)
    given = tables_of(problem, x, z, lr=lr)
    assert of("convexity_ratio", given, "reference:last", "cumulative_ratio")[-1] == pytest.approx(2.32, rel=0.03)
    assert of("convexity_ratio", given, "reference:last", "frozen_ratio")[-1] == pytest.approx(5.68, rel=0.06)
    gap = of("reference_gap", given, "reference:last", "cumulative")[-1]
    h, e = np.tile([0.3, 1.0, 2.5], copies), x[:-1] - x[-1]
    assert gap == pytest.approx(-(h * e * e).sum() / 2)  # the gap is clean


def test_taking_the_bias_of_the_reference_off_the_ratio_gives_that_of_the_population():
    copies, spread = 1000, np.sqrt([1.0, 0.5, 0.2])
    problem = noisy(spread, np.full(3, 0.005), np.full(3, 60.0), copies)
    x, z = walk(problem, 0.2, 60)
    given = tables_of(problem, x, z, lr=0.2, halves=split(problem, np.tile(spread, copies)))
    e, losses = x[:-1] - x[-1], 0.005 * (x[:-1] ** 2 - x[-1] ** 2).sum(axis=1) / 2
    slopes = (0.005 * x[:-1] * e).sum()
    true, frozen = slopes / losses.sum(), of("reference_slope", given, "reference:last").sum() / losses.sum()
    found = verdict("convexity_ratio", "at least 1", given, "reference:last")
    adds, pulls = (float(part.split()[1]) for part in found["biases"].split("; R"))
    assert frozen - true == pytest.approx(adds, rel=0.15)
    assert found["estimate"] - true == pytest.approx(pulls, rel=0.15)
    assert true > found["estimate"] > 1


def test_half_batches_take_the_noise_out_of_the_error_bound_and_its_absence_is_named():
    size, noise = 400, 2.0
    problem = quadratic(np.eye(size), np.ones(size), noise)
    x, z = walk(problem, 0.01, 60)
    spread = noise  # halves with independent noise: their mean is z, their difference as large
    with_halves = tables_of(problem, x, z, {"run:best": np.zeros(size)}, halves=split(problem, spread), lr=0.01)
    without = tables_of(problem, x, z, {"run:best": np.zeros(size)}, lr=0.01)
    assert of("error_bound", with_halves, "reference:run:best").mean() == pytest.approx(1, rel=0.1)
    inflated = 1 + noise**2 * size / ((x[:-1] ** 2).sum(axis=1)).mean()
    assert of("error_bound", without, "reference:run:best").mean() == pytest.approx(inflated, rel=0.15)
    claim = "below 2/lr on average"
    assert "not known" in verdict("error_bound", claim, without, "reference:run:best")["biases"]
    assert "minibatch noise +0" in verdict("error_bound", claim, with_halves, "reference:run:best")["biases"]
