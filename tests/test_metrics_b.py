"""Metrics towards reference points, on losses whose answers are exact."""

import math

import numpy as np
import polars as pl
import pytest
from numpy.testing import assert_allclose

from analysis.metrics.alpha_beta import feasible
from analysis.metrics.unified_parametric import fitted
from tests.problems import Problem, convex_problems, logistic, positive_definite, quadratic
from tests.walks import METRICS, along, of, tables_of, verdict, walk

pytestmark = pytest.mark.usefixtures("path_taken")

HESSIAN = positive_definite(6, 0.1, 4.0, seed=1)
START = np.random.default_rng(3).normal(size=6)
POINTS = {"run:best": np.zeros(6), "last": None, "point:here": START / 3}


def on_a_quadratic(**options):
    problem = quadratic(HESSIAN, START)
    x, z = walk(problem, 0.1, 40, momentum=0.9)
    references = {name: x[-1] if at is None else at for name, at in POINTS.items()}
    given = tables_of(problem, x, z, references, halves=lambda at, _: (HESSIAN @ at, HESSIAN @ at), **options)
    return given, x, references


def form(e, matrix=HESSIAN):
    return np.einsum("ti,ij,tj->t", e, matrix, e)


@pytest.mark.parametrize("name", POINTS)
def test_on_a_quadratic_every_one_sided_constant_is_a_rayleigh_quotient(name):
    given, x, references = on_a_quadratic()
    pairing, e = f"reference:{name}", x[:-1] - references[name]
    ee, gradient = (e * e).sum(axis=1), x[:-1] @ HESSIAN
    assert_allclose(of("reference_gap", given, pairing), -form(e) / 2, atol=1e-11)
    assert_allclose(of("strong_convexity", given, pairing), form(e) / ee, rtol=1e-8)
    slope = (gradient * e).sum(axis=1)
    assert_allclose(of("reference_slope", given, pairing), slope)
    assert_allclose(of("restricted_secant", given, pairing), slope / ee)
    assert_allclose(of("error_bound", given, pairing), (gradient**2).sum(axis=1) / ee)
    cosine = slope / np.linalg.norm(gradient, axis=1) / np.sqrt(ee)
    assert_allclose(of("reference_cosine", given, pairing), cosine)
    assert_allclose(of("aiming", given, pairing), slope / (form(x[:-1]) / 2))
    above = form(x[:-1]) / 2 - references[name] @ HESSIAN @ references[name] / 2
    assert_allclose(of("quadratic_growth", given, pairing), 2 * above / ee, rtol=1e-9, atol=1e-12)
    after = ((x[1:] - references[name]) ** 2).sum(axis=1)
    assert_allclose(of("fejer", given, pairing), after - ee, atol=1e-12)
    assert of("fejer", given, pairing, "cumulative")[-1] == pytest.approx(after[-1] - ee[0])


def test_around_the_minimiser_of_a_quadratic_the_constants_are_in_mu_and_l_and_the_ratio_is_two():
    given, x, _ = on_a_quadratic()
    e = x[:-1]
    assert_allclose(of("convexity_ratio", given, "reference:run:best"), 2)
    assert_allclose(of("convexity_ratio", given, "reference:run:best", "cumulative_ratio"), 2)
    assert_allclose(of("quasar", given, "reference:run:best"), 2)
    assert_allclose(of("restricted_secant", given, "reference:run:best"), form(e) / (e * e).sum(axis=1))
    assert_allclose(of("error_bound", given, "reference:run:best"), form(e, HESSIAN @ HESSIAN) / (e * e).sum(axis=1))
    for constant in (
        of("restricted_secant", given, "reference:run:best"),
        np.sqrt(of("error_bound", given, "reference:run:best")),
        of("polyak_lojasiewicz", given),
        of("polyak_lojasiewicz_to_reference", given, "reference:run:best"),
    ):
        assert np.all((constant >= 0.1 - 1e-9) & (constant <= 4 + 1e-9))
    cosine = of("reference_cosine", given, "reference:run:best")
    assert np.all((cosine >= 2 * math.sqrt(0.1 * 4) / 4.1 - 1e-9) & (cosine <= 1 + 1e-12))


def test_to_any_other_point_the_ratio_of_a_quadratic_is_one_plus_half_the_summed_form_over_the_losses():
    problem = quadratic(HESSIAN, START)
    x, z = walk(problem, 0.3, 200)
    given = tables_of(problem, x, z)
    e, losses = x[:-1] - x[-1], form(x[:-1]) / 2 - x[-1] @ HESSIAN @ x[-1] / 2
    want = 1 + form(e).sum() / 2 / losses.sum()
    assert of("convexity_ratio", given, "reference:last", "cumulative_ratio")[-1] == pytest.approx(want)
    found = verdict("convexity_ratio", "at least 1", given, "reference:last")
    assert found["estimate"] == pytest.approx(want)
    assert found["numerator"] == pytest.approx((x[:-1] @ HESSIAN * e).sum())


@pytest.mark.parametrize("power", [0.5, 1.0, 1.5, 2.0, 4.0])
def test_of_homogeneous_losses_the_ratio_is_the_degree(power):
    points = np.random.default_rng(5).normal(size=(120, 3))
    problem, x, z = along(
        points,
        lambda x: np.linalg.norm(x) ** power,
        lambda x: power * np.linalg.norm(x) ** (power - 2) * x if x.any() else x,
    )
    given = tables_of(problem, x, z, {"point:0": np.zeros(3)})
    for name in ("convexity_ratio", "quasar", "aiming"):
        assert_allclose(of(name, given, "reference:point:0"), power)
    star = verdict("quasar", "star-convex at 95 % of the steps", given, "reference:point:0")["status"]
    assert star == ("FAILS" if power < 1 else star)
    assert verdict("quasar", "quasar-convex at 95 % of the steps", given, "reference:point:0")["status"] == "HOLDS"


def test_of_the_two_layer_loss_the_ratio_and_the_pl_constant_are_known():
    a = np.array([0.2, 1 / 3, 0.8, 1.5, 2.0])
    problem, x, z = along(
        np.column_stack([a, a]),
        lambda w: (w[0] * w[1] - 1) ** 2 / 2,
        lambda w: (w[0] * w[1] - 1) * np.array([w[1], w[0]]),
    )
    given = tables_of(problem, x, z, {"point:1": np.ones(2)}, halves=lambda w, _: (problem.grad(w, w),) * 2)
    assert_allclose(of("convexity_ratio", given, "reference:point:1"), 4 * a[:-1] / (1 + a[:-1]))
    assert_allclose(of("polyak_lojasiewicz", given), 2 * a[1:-1] ** 2)


def test_pl_and_secant_without_convexity_have_the_constants_of_x2_plus_3_sin2():
    grid = np.concatenate([np.linspace(1e-3, 4, 2000), np.linspace(2, 2.7, 1000), np.linspace(1.5, 1.64, 100)])
    problem, x, z = along(grid, lambda x: x[0] ** 2 + 3 * np.sin(x[0]) ** 2, lambda x: 2 * x + 3 * np.sin(2 * x))
    given = tables_of(problem, x, z, {"point:0": np.zeros(1)}, halves=lambda x, _: (problem.grad(x, x),) * 2)
    assert of("polyak_lojasiewicz", given).min() == pytest.approx(0.17553, abs=1e-5)
    assert of("polyak_lojasiewicz_to_reference", given, "reference:point:0").min() == pytest.approx(0.17553, abs=1e-5)
    assert of("restricted_secant", given, "reference:point:0").min() == pytest.approx(0.696598, abs=1e-6)
    assert math.sqrt(of("error_bound", given, "reference:point:0").max()) == pytest.approx(8, abs=1e-4)
    assert of("directional_curvature", given).min() == pytest.approx(-4, abs=1e-4)


def test_of_a_star_convex_loss_the_gap_and_the_ratio_to_0_are_known():
    points = np.linspace(0.05, 8, 400)
    problem, x, z = along(
        points,
        lambda x: abs(x[0]) * -np.expm1(-abs(x[0])),
        lambda x: np.sign(x) * (1 - np.exp(-np.abs(x)) + np.abs(x) * np.exp(-np.abs(x))),
    )
    given, at = tables_of(problem, x, z, {"point:0": np.zeros(1)}), points[:-1]
    assert_allclose(of("reference_gap", given, "reference:point:0"), -(at**2) * np.exp(-at), atol=1e-15)
    assert_allclose(of("convexity_ratio", given, "reference:point:0"), 1 + at / np.expm1(at))
    assert verdict("reference_gap", "star-convex at every step", given, "reference:point:0")["status"] == "HOLDS"
    assert verdict("convexity_gap", "convex at every step", given)["status"] == "FAILS"


def test_a_loss_without_a_quasar_constant_has_a_ratio_that_falls_to_0():
    points = np.random.default_rng(0).uniform(0.01, 30, 600)
    problem, x, z = along(points, lambda x: np.log1p(x[0] ** 2), lambda x: 2 * x / (1 + x**2))
    given, at = tables_of(problem, x, z, {"point:0": np.zeros(1)}), points[:-1]
    assert_allclose(of("quasar", given, "reference:point:0"), 2 * at**2 / ((1 + at**2) * np.log1p(at**2)))
    assert of("quasar", given, "reference:point:0", "running_min")[-1] < 0.3
    assert verdict("convexity_ratio", "at least 1", given, "reference:point:0")["status"] == "FAILS"
    assert verdict("convexity_ratio", "at least 0", given, "reference:point:0")["status"] == "HOLDS"


def test_around_the_minimiser_of_a_quadratic_c1_is_two_and_the_slack():
    given, x, _ = on_a_quadratic()
    losses = form(x[:-1]) / 2
    slack = 0.01 * losses[:10].mean()
    at = "reference:run:best"
    assert_allclose(of("unified_parametric", given, at), 2 + slack / losses)
    assert_allclose(of("unified_parametric", given, at, "without_slack"), of("quasar", given, at))
    assert_allclose(of("unified_parametric", given, at, "more_slack"), 2 + 10 * slack / losses)
    assert_allclose(fitted(2 * losses, losses, np.array([0.0, slack]), 0), [2, 2 + slack / losses.max()])


def test_ripples_that_break_the_quasar_constant_are_within_a_slack():
    points = np.random.default_rng(2).uniform(0.05, 3, 600)
    points[:10] = 3  # where training began
    problem, x, z = along(
        points,
        lambda x: x[0] ** 2 / 2 + 0.02 * np.sin(30 * x[0]) ** 2,
        lambda x: x + 0.6 * np.sin(60 * x),
    )
    given, at = tables_of(problem, x, z, {"point:0": np.zeros(1)}), "reference:point:0"
    assert verdict("quasar", "star-convex at 95 % of the steps", given, at)["status"] == "FAILS"
    assert verdict("unified_parametric", "some c1 at 95 % of the steps", given, at)["status"] == "HOLDS"
    slope, above = of("reference_slope", given, at), np.array([problem.f(p, p) for p in x[:-1]])
    slacks = np.array([0.0, 0.05, 0.1, 0.3])
    constants = fitted(slope, above, slacks)
    assert np.isnan(constants[0])
    assert 0 < constants[1] < constants[2] < constants[3]
    for c1, c2 in zip(constants[1:], slacks[1:], strict=True):
        outside, beyond = ((slope < factor * above - c2).mean() for factor in (c1 * (1 - 1e-9), c1 * 1.1))
        assert outside <= 0.05 < beyond


def test_no_step_above_the_reference_leaves_no_constant():
    assert np.isnan(fitted(np.ones(4), -np.ones(4), np.zeros(2))).all()
    assert_allclose(fitted(-np.ones(4), np.ones(4), np.array([0.0, 2.0])), [np.nan, 1])


def test_to_its_kink_the_ratio_of_the_absolute_value_is_one():
    problem, x, z = along(np.random.default_rng(0).normal(size=50), lambda x: abs(x[0]), np.sign)
    given = tables_of(problem, x, z, {"point:0": np.zeros(1)})
    assert_allclose(of("convexity_ratio", given, "reference:point:0", "cumulative_ratio"), 1)


@pytest.mark.parametrize("kind", ["quadratic 1", "logistic 1", "least squares 1"])
def test_on_convex_minibatch_losses_the_identity_holds_towards_every_point(kind):
    problem, lr = {name: (problem, lr) for name, problem, lr in convex_problems()}[kind]
    x, z = walk(problem, lr, 400)
    references = {"last": x[-1], "tail_mean": x[-40:].mean(axis=0), "point:half": x[-1] / 2}
    given = tables_of(problem, x, z, references, lr=lr)
    for name in references:
        pairing = f"reference:{name}"
        assert verdict("reference_gap", "star-convex at every step", given, pairing)["violations"] == 0
        assert verdict("reference_gap", "star-convex on average", given, pairing)["status"] == "HOLDS"
        assert verdict("alpha_beta", "alpha 1, beta 0", given, pairing)["violations"] == 0
        assert verdict("strong_convexity", "star-convex on average, by distance", given, pairing)["status"] == "HOLDS"
        assert of("reference_gap", given, pairing, "cumulative")[-1] <= 0
    assert verdict("convexity_ratio", "at least 1", given, "reference:last")["estimate"] > 1


def test_a_concave_loss_fails_star_convexity_towards_a_point_off_the_path():
    problem = quadratic(-np.eye(4), np.zeros(4), noise=3.0)
    x, z = walk(problem, 0.002, 400)
    given = tables_of(problem, x, z, {"point:far": np.ones(4)})
    for name, claim in (
        ("reference_gap", "star-convex on average"),
        ("reference_gap", "star-convex at every step"),
        ("strong_convexity", "star-convex on average, by distance"),
        ("strong_convexity", "star-convex at 95 % of the steps, by distance"),
    ):
        assert verdict(name, claim, given, "reference:point:far")["status"] == "FAILS", claim
    assert_allclose(of("strong_convexity", given, "reference:point:far"), -1, rtol=1e-9)


def test_without_the_loss_at_the_reference_what_needs_it_is_not_applicable_and_the_slope_is_there():
    problem = logistic(1)
    x, z = walk(problem, 0.3, 300)
    given = tables_of(problem, x, z)
    bare = type(given)(
        given.geometry.with_columns(loss_y=pl.lit(None, pl.Float64)), given.path, given.steps, given.facts
    )
    for name in ("reference_gap", "convexity_ratio", "quasar", "alpha_beta", "strong_convexity", "quadratic_growth"):
        claim = METRICS[name].claims[0].name
        found = verdict(name, claim, bare, "reference:last")
        assert (found["status"], "loss_y" in found["reason"]) == ("NOT APPLICABLE", True), name
    total = verdict("reference_slope", "descent directions lead there on average", bare, "reference:last")
    assert total["status"] == "HOLDS"
    slopes = [problem.grad(at, batch) @ (at - x[-1]) for at, batch in zip(x, z, strict=False)]
    assert of("reference_slope", bare, "reference:last", "cumulative")[-1] == pytest.approx(sum(slopes))
    assert verdict("aiming", "aims on the whole", bare, "reference:last")["estimate"] > 0


def test_alpha_beta_of_the_published_example_holds_at_2_5_and_2_and_not_at_1_and_0():
    shift = np.array([0.0, 1.0])
    problem = Problem(
        f=lambda x, z: float((x[0] + z[0]) ** 2 / ((x[0] + z[0]) ** 2 + 1)),
        grad=lambda x, z: 2 * (x + z) / ((x + z) ** 2 + 1) ** 2,
        start=np.zeros(1),
    )
    x = np.repeat(np.linspace(-30, 30, 2001), 2)[:, None]
    z = [shift[t % 2 : t % 2 + 1] for t in range(len(x) - 1)]
    given = tables_of(problem, x, z, {"run:best": np.array([-0.5])})
    holds = verdict("alpha_beta", "alpha 2.5, beta 2", given, "reference:run:best")
    assert (holds["status"], holds["violations"]) == ("HOLDS", 0)
    assert verdict("alpha_beta", "alpha 1, beta 0", given, "reference:run:best")["status"] == "FAILS"


def test_the_smallest_beta_of_a_step_makes_its_residual_0():
    given = tables_of(*along([0.5, 2.0, 0.0], lambda x: x[0] ** 2, lambda x: 2 * x), {"point:1": np.ones(1)})
    found = of("alpha_beta", given, "reference:point:1")
    assert_allclose(found, [0.425, 0])
    slope, loss, above = -0.5, 0.25, 0.25 - 1
    assert slope - (found[0] + 0.1) * above + found[0] * loss == pytest.approx(0)


def test_feasible_constants_are_those_that_hold_at_every_step():
    random = np.random.default_rng(1)
    slope, loss, reference = random.normal(size=300) + 2, random.uniform(0.5, 3, 300), random.uniform(0.1, 0.5, 300)
    corners = feasible(slope, loss, reference, largest=10)

    def least(alpha, beta):
        return (slope - alpha * (loss - reference) + beta * loss).min()

    assert len(corners) > 3
    for alpha, beta in corners:
        assert least(alpha, beta) >= -1e-9
    inside = corners.mean(axis=0)
    assert least(*inside) > 0
    on_edges = [(corners[i] + corners[i - 1]) / 2 for i in range(len(corners))]
    moved = [edge + 1e-3 * (edge - inside) for edge in on_edges]
    bounded = [not (0 <= b <= a <= 10 and least(a, b) >= 0) for a, b in moved]
    assert all(bounded)
    assert feasible(np.array([-5.0]), np.array([0.1]), np.array([0.05]), largest=1).shape == (0, 2)


def test_on_logistic_regression_the_path_is_at_least_as_long_as_the_bound():
    problem = logistic(31, examples=400, size=8, batch=16)
    start = Problem(problem.f, problem.grad, np.zeros(8), problem.draw)
    x, z = walk(start, 0.5, 300)
    given = tables_of(start, x, z, {"initial": x[0], "last": x[-1]})
    gradients = np.array([problem.grad(at, batch) for at, batch in zip(x, z, strict=False)])
    sums = np.cumsum(gradients, axis=0)
    want = np.cumsum(((x[0] - x[:-1]) * gradients).sum(axis=1)) / np.linalg.norm(sums, axis=1)
    for pairing in ("reference:initial", "reference:last"):
        assert_allclose(of("d_bound", given, pairing), want, atol=1e-12)
    assert want[-1] <= np.linalg.norm(x[0] - x[-1])
    found = verdict("d_bound", "no longer than the way come", given, "reference:initial")
    assert found["violations"] == 0
    assert set(np.sign(of("d_bound", given, "reference:initial") - np.linalg.norm(x[:-1] - x[0], axis=1))) <= {-1, 0}


def test_a_path_that_turns_back_to_a_worse_point_exceeds_the_bound_and_the_caveat_says_when_it_counts():
    points = np.concatenate([np.arange(60.0), [0.5] * 40])  # of the linear loss −x: convex, but x_t is no better there
    given = tables_of(*along(points, lambda x: -x[0], lambda x: -np.ones(1)), {"initial": points[:1]})
    found = verdict("d_bound", "no longer than the way come", given, "reference:initial")
    assert found["status"] == "FAILS"
    assert "provided x_t is the better point" in " ".join(found["caveat"].split())


def test_steps_no_better_than_the_reference_are_not_asked_for_a_quasar_constant():
    given = tables_of(*along([2.0, 1.0, 0.5, 3.0], lambda x: x[0] ** 2, lambda x: 2 * x), {"point:1": np.ones(1)})
    found = of("quasar", given, "reference:point:1")
    assert_allclose(found, [4 * 1 / 3, np.nan, np.nan])


def test_on_a_stable_noise_free_descent_every_step_comes_closer_to_the_minimiser():
    problem = quadratic(HESSIAN, START)
    x, z = walk(problem, 0.1, 60)
    given = tables_of(problem, x, z, {"run:best": np.zeros(6)})
    assert verdict("fejer", "closer at every step", given, "reference:run:best")["status"] == "HOLDS"
    noise = quadratic(0 * HESSIAN, np.zeros(6), 1.0)
    x, z = walk(noise, 0.1, 400)
    away = tables_of(noise, x, z, {"initial": x[0]})
    assert verdict("fejer", "closer at every step", away, "reference:initial")["status"] == "FAILS"
