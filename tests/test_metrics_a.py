"""Metrics of convexity along the step, on losses whose answers are exact."""

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests import real_path
from tests.problems import Problem, convex_problems, positive_definite, quadratic
from tests.walks import along, of, tables_of, verdict, walk

pytestmark = pytest.mark.usefixtures("path_taken")

HESSIAN = positive_definite(6, 0.1, 4.0, seed=1)
START = np.random.default_rng(3).normal(size=6)
PAIRINGS = ("previous", "next")


def steps_of(x, pairing):
    return np.diff(x[:-1] if pairing == "previous" else x, axis=0)


def dhd(d):
    return np.einsum("ti,ij,tj->t", d, HESSIAN, d)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("pairing", PAIRINGS)
def test_on_a_noisy_quadratic_every_gap_is_half_dHd(pairing, momentum):  # noqa: N802
    problem = quadratic(HESSIAN, START, noise=0.2)
    x, z = walk(problem, 0.1, 60, momentum)
    given, d = tables_of(problem, x, z), steps_of(x, pairing)
    dd = (d * d).sum(axis=1)
    for name, want in (
        ("convexity_gap", -dhd(d) / 2),
        ("forward_gap", dhd(d) / 2),
        ("trapezoid_gap", -dhd(d) / 2),
        ("directional_curvature", dhd(d) / dd),
        ("weak_convexity", -dhd(d) / dd),
    ):
        assert_allclose(of(name, given, pairing), want, atol=1e-11)
    assert np.all(
        of("directional_curvature", given, pairing) <= of("smoothness", given) if pairing == "previous" else True
    )
    assert np.all(
        (of("directional_curvature", given, pairing) >= 0.1 - 1e-9)
        & (of("directional_curvature", given, pairing) <= 4 + 1e-9)
    )
    assert np.abs(of("jerk", given, pairing)).max() < 1e-8
    assert set(of("violation_mass", given, pairing)) == {0.0}


def test_severity_is_the_gap_over_the_sizes_it_is_made_of():
    problem = quadratic(HESSIAN, START)
    x, z = walk(problem, 0.1, 30)
    given, d = tables_of(problem, x, z), steps_of(x, "previous")
    change, slope = np.diff([problem.f(at, z[0]) for at in x[:-1]]), np.einsum("ti,ij,tj->t", x[1:-1], HESSIAN, d)
    assert_allclose(of("severity", given), -dhd(d) / 2 / (np.abs(change) + np.abs(slope)), rtol=1e-9)
    assert_allclose(of("severity", given, column="over_slope"), -dhd(d) / 2 / np.abs(slope), rtol=1e-9)


def test_on_a_cubic_the_jerk_is_a_sixth_of_the_third_derivative():
    given = tables_of(*along([0.0, 0.5, 0.2, 1.0], lambda x: 5 * x[0] ** 3, lambda x: 15 * x**2))
    assert_allclose(of("jerk", given, "next"), [-5, 5, -5])


def test_the_forward_gap_is_the_convexity_gap_plus_the_change_of_slope():
    given = tables_of(*along(np.linspace(-2, 2, 40) ** 3, lambda x: np.cos(x[0]), lambda x: -np.sin(x)))
    difference = of("forward_gap", given) - of("convexity_gap", given)
    assert_allclose(difference, -2 * of("trapezoid_gap", given), atol=1e-12)
    assert_allclose((of("convexity_gap", given) - of("forward_gap", given)) / 2, of("trapezoid_gap", given), atol=1e-12)


def test_on_a_kink_the_curvature_is_two_over_lr_at_every_crossing():
    lr, start = 0.3, 0.1
    points = np.where(np.arange(42) % 2 == 0, start, start - lr)
    given = tables_of(*along(points, lambda x: abs(x[0]), np.sign), lr=lr)
    for pairing in PAIRINGS:
        assert_allclose(of("directional_curvature", given, pairing), 2 / lr)
    assert_allclose(of("convexity_gap", given, "next"), np.where(np.arange(41) % 2 == 0, -2 * start, -2 * (lr - start)))
    assert_allclose(of("weak_convexity", given, "next", "one_over_lr"), 1 / lr)


def test_star_convex_but_not_convex_steps_are_positive_beyond_2_and_need_the_modulus_exp_minus_3():
    def f(x):
        return abs(x[0]) * -math.expm1(-abs(x[0]))

    def grad(x):
        return np.sign(x) * (1 - np.exp(-np.abs(x)) + np.abs(x) * np.exp(-np.abs(x)))

    points = np.array([4.0, 5.0, 4.0, 3.0, 2.5, 1.5, 0.5])
    gap = of("convexity_gap", tables_of(*along(points, f, grad)), "next")
    slope = grad(points[1:]) * np.diff(points)
    assert_allclose(gap, np.diff([f([at]) for at in points]) - slope)
    assert list(gap > 0) == [True, True, True, True, False, False]
    near = tables_of(*along(3 + 0.01 * np.cos(np.arange(200.0)), f, grad))
    assert of("weak_convexity", near).max() == pytest.approx(math.exp(-3), rel=1e-3)


def test_inside_a_double_well_with_kinks_the_modulus_is_exactly_two():
    points = np.random.default_rng(0).uniform(-0.9, 0.9, 400)
    given = tables_of(*along(points, lambda x: abs(x[0] ** 2 - 1), lambda x: -2 * x))
    assert_allclose(of("weak_convexity", given), 2.0)
    assert verdict("convexity_gap", "convex at every step", given)["status"] == "FAILS"
    assert verdict("forward_gap", "convex at every step", given)["status"] == "FAILS"
    assert verdict("violation_mass", "little mass above 0", given)["status"] == "FAILS"
    assert verdict("severity", "rarely severe", given)["status"] == "FAILS"


def test_a_step_of_gradient_descent_shortens_the_gradient_by_lr_h_times_2_minus_lr_h():
    h = 2.0
    for lr, status in ((0.3, "HOLDS"), (0.9, "HOLDS"), (1.05, "FAILS")):
        problem = quadratic(h * np.eye(2), np.ones(2), noise=0.1)
        x, z = walk(problem, lr, 60)
        given = tables_of(problem, x, z, lr=lr)
        g = np.array([problem.grad(at, batch) for at, batch in zip(x, z, strict=False)])
        want = (g * g).sum(axis=1) * (lr * h - 2) * lr * h
        assert_allclose(of("gradient_norm_monotone", given, "next"), want, rtol=1e-9, atol=1e-12)
        assert verdict("gradient_norm_monotone", "shortened by its own step", given, "next")["status"] == status


def test_with_momentum_or_another_optimizer_no_step_is_asked_to_shorten_its_gradient():
    problem = quadratic(np.eye(2), np.ones(2))
    x, z = walk(problem, 0.1, 60, momentum=0.9)
    heavy = tables_of(problem, x, z, records={"momentum": 0.9})
    assert verdict("gradient_norm_monotone", "shortened by its own step", heavy, "next")["status"] == "NOT APPLICABLE"
    adam = tables_of(problem, x, z, optimizer_class="torch.optim.adam.Adam")
    assert verdict("gradient_norm_monotone", "shortened by its own step", adam, "next")["status"] == "NOT APPLICABLE"


@pytest.mark.parametrize("lr", [0.1, 0.45])
def test_the_curve_of_gradient_descent_on_a_quadratic_is_convex(lr):
    problem = quadratic(HESSIAN, START)
    x, z = walk(problem, lr, 60)
    given = tables_of(problem, x, z, lr=lr)
    curve = [problem.f(at, z[0]) for at in x]
    assert_allclose(of("curve_convexity", given), np.diff(curve, 2), atol=1e-13)
    assert (of("curve_convexity", given) > -1e-13).all()


def test_noise_bends_the_measured_curve_down_by_lr_tr_sigma_and_half_batches_straighten_it():
    lr, noise, size = 0.2, 1.0, 300
    problem = quadratic(0.8 * np.eye(size), np.zeros(size), noise)
    x, z = walk(problem, lr, 400)

    def halves(at, batch):
        other = np.random.default_rng(int(1e6 * abs(batch[0]))).normal(size=size) * noise
        return problem.grad(at, batch + other), problem.grad(at, batch - other)  # their mean is the gradient

    given = tables_of(problem, x, z, lr=lr, halves=halves)
    tail = of("curve_convexity", given)[50:].mean()
    assert tail == pytest.approx(-lr * size * noise**2, rel=0.03)
    straight = of("curve_convexity", given, column="without_noise")[50:].mean()
    assert abs(straight) < 0.03 * lr * size * noise**2


def test_curvature_that_varies_between_minibatches_makes_in_sample_gaps_larger():
    problem = Problem(
        f=lambda x, z: float(z[0] * x[0] ** 2 / 2),
        grad=lambda x, z: z[0] * x,
        start=np.ones(1),
        draw=lambda random: random.choice([1.0, 3.0], size=1),
    )
    lr, n = 1e-3, 4000
    x, z = walk(problem, lr, n)
    given = tables_of(problem, x, z, lr=lr)
    in_sample = (of("convexity_gap", given, "next") / x[:-1, 0] ** 2).mean()
    fresh = (of("convexity_gap", given) / x[:-2, 0] ** 2).mean()
    assert in_sample == pytest.approx(-(lr**2) * 14 / 2, rel=0.05)  # E h³
    assert fresh == pytest.approx(-(lr**2) * 10 / 2, rel=0.05)  # E h E h²


def test_the_population_is_judged_on_fresh_minibatches_only():
    problem = quadratic(HESSIAN, START, noise=0.3)
    x, z = walk(problem, 0.1, 200)
    given = tables_of(problem, x, z)
    for name in ("convexity_gap", "forward_gap", "trapezoid_gap", "directional_curvature"):
        assert verdict(name, "convex on average", given)["status"] == "HOLDS"
        assert verdict(name, "convex on average", given, "next")["status"] == "NOT APPLICABLE"
    assert verdict("convexity_gap", "convex at every step", given, "next")["status"] == "HOLDS"


@pytest.mark.parametrize("kind", ["quadratic 1", "logistic 1", "least squares 1"])
def test_convex_losses_have_no_share_no_mass_no_severity_of_violations(kind):
    problem, lr = {name: (problem, lr) for name, problem, lr in convex_problems()}[kind]
    x, z = walk(problem, lr, 400)
    given = tables_of(problem, x, z, lr=lr)
    for pairing in PAIRINGS:
        assert verdict("convexity_gap", "mostly convex", given, pairing)["estimate"] == 0
        assert verdict("violation_mass", "little mass above 0", given, pairing)["estimate"] == 0
        for name, claim in (
            ("convexity_gap", "mostly convex"),
            ("severity", "median not positive"),
            ("severity", "rarely severe"),
            ("weak_convexity", "mild against 1/lr"),
            ("violation_mass", "little mass above 0"),
        ):
            assert verdict(name, claim, given, pairing)["status"] == "HOLDS", (name, claim, pairing)


def test_a_concave_loss_fails_what_a_convex_one_holds():
    problem = quadratic(-np.eye(4), np.zeros(4), noise=3.0)
    x, z = walk(problem, 0.002, 400)
    given = tables_of(problem, x, z, lr=2.0)  # a rate at which the modulus 1 is not mild
    for name, claim in (
        ("convexity_gap", "mostly convex"),
        ("severity", "median not positive"),
        ("weak_convexity", "mild against 1/lr"),
        ("violation_mass", "little mass above 0"),
    ):
        assert verdict(name, claim, given)["status"] == "FAILS", (name, claim)
    assert verdict("convexity_gap", "mostly convex", given)["estimate"] == 1
    assert set(of("violation_mass", given)) == {1.0}


def test_where_the_forward_gap_drowns_in_rounding_the_gradients_decide():
    given = tables_of(
        *along(np.arange(60) * 1e-6, lambda x: 5 + 1e-3 * x[0] ** 2, lambda x: 2e-3 * x), loss_dtype="float32"
    )
    found = verdict("forward_gap", "convex at every step", given)
    assert (found["status"], found["worst"]) == ("HOLDS", pytest.approx(1e-15))
    assert found["tolerance"] < 1e-16


def test_variants_move_the_gap_by_the_clipped_slope_and_by_the_penalty():
    problem = quadratic(HESSIAN, START)
    x, z = walk(problem, 0.1, 20)
    given = tables_of(problem, x, z, records={"clip_factor": 0.5, "weight_decay": 0.7})
    d, slope = steps_of(x, "previous"), np.einsum("ti,ij,tj->t", x[1:-1], HESSIAN, steps_of(x, "previous"))
    assert_allclose(of("convexity_gap", given, column="clipped"), -dhd(d) / 2 + slope / 2, atol=1e-12)
    penalized = -dhd(d) / 2 - 0.35 * (d * d).sum(axis=1)
    assert_allclose(of("convexity_gap", given, column="regularized"), penalized, atol=1e-12)
    assert np.isnan(of("convexity_gap", given, "next", "clipped")).all()  # the look-ahead gradient is never clipped


def test_with_decay_in_the_gradient_steps_descend_the_penalized_loss_and_its_numbers_stand_beside():
    decay, problem = 0.7, quadratic(HESSIAN, START)
    x, z = walk(problem, 0.1, 20)
    given = tables_of(problem, x, z, records={"weight_decay": decay})
    d, penalized = steps_of(x, "previous"), HESSIAN + decay * np.eye(len(START))
    smoothness = np.linalg.norm(d @ penalized, axis=1) / np.linalg.norm(d, axis=1)
    assert_allclose(of("smoothness", given, column="regularized"), smoothness, rtol=1e-9)
    curvature = np.einsum("ti,ij,tj->t", d, penalized, d) / (d * d).sum(axis=1)
    assert_allclose(of("directional_curvature", given, column="regularized"), curvature, rtol=1e-9)
    if real_path.wanted(20):  # tables by hand do not know ⟨x, d⟩
        slope = np.einsum("ti,ij,tj->t", x[1:-1], penalized, d)
        assert_allclose(of("update_correlation", given, column="regularized"), slope, atol=1e-12)
    apart = replace(given, facts=replace(given.facts, optimizer_flags=("decoupled_weight_decay",)))
    assert np.isnan(of("smoothness", apart, column="regularized")).all(), "AdamW descends no penalized loss"
