"""Families C and G on losses whose constants are exact: what the metric files give through the tables."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from numpy.testing import assert_allclose

from analysis.measure import measure
from analysis.registry import metrics
from tests.problems import Problem, kink, positive_definite, quadratic
from tests.recorded_walks import Walk, along, isotropic, rows_of, tables_of, walk

pytestmark = pytest.mark.usefixtures("path_taken")

METRICS = metrics()


def column(name, given, pairing="previous", of="value"):
    table = given if isinstance(given, pl.DataFrame) else measure(replace(METRICS[name], claims=()), given).table
    return table.filter(pl.col("pairing").cast(str) == pairing)[of].to_numpy()


def verdict(name, claim, given, pairing="previous"):
    rows = measure(METRICS[name], given).verdicts
    return rows.filter((pl.col("claim") == claim) & (pl.col("pairing") == pairing)).row(0, named=True)


@pytest.fixture(scope="module")
def hilly(path_taken):
    """A noisy quadratic walked with momentum, and its steps as (in-sample) d, Hd and ⟨g, d⟩."""
    hessian = positive_definite(6, 0.1, 4.0, seed=1)
    w = walk(quadratic(hessian, np.random.default_rng(3).normal(size=6), noise=0.2), 0.1, 60, momentum=0.9)
    return w, hessian


@pytest.fixture(scope="module")
def resting(path_taken):
    """SGD at rest on an isotropic noisy quadratic: curvature 1.5, rate 0.4, unit noise in 4000 coordinates."""
    return tables_of(walk(isotropic(1.5, 4000, 1.0, start=np.sqrt(0.4 / 1.5 / (2 - 0.6))), 0.4, 300, seed=11))


@pytest.mark.parametrize("pairing", ["previous", "next"])
def test_on_a_quadratic_every_curvature_is_a_form_of_the_hessian(hilly, pairing):
    w, hessian = hilly
    given = tables_of(w)
    d = np.diff(w.x, axis=0)[:-1] if pairing == "previous" else np.diff(w.x, axis=0)
    y = w.x[:-2] if pairing == "previous" else w.x[:-1]
    z = np.array(w.z)[1:] if pairing == "previous" else np.array(w.z)
    bent = d @ hessian
    length, form = np.linalg.norm(d, axis=1), np.einsum("ti,ti->t", d, bent)
    gy = y @ hessian + z
    promised = np.einsum("ti,ti->t", gy, d)
    smooth = np.linalg.norm(bent, axis=1) / length
    assert_allclose(column("smoothness", given, pairing), smooth)
    assert_allclose(column("smoothness", given, pairing, of="mishkin"), 2 * smooth)
    assert_allclose(column("curvature_alignment", given, pairing), form / length**2 / smooth)
    assert_allclose(column("directional_smoothness", given, pairing), form / length**2, rtol=1e-7)
    assert_allclose(column("semi_smoothness", given, pairing), form / length / 2, rtol=1e-7)
    assert_allclose(column("l0_l1", given, pairing), smooth / np.linalg.norm(gy, axis=1))
    assert_allclose(column("edge_number", given, pairing), -form / promised)
    assert_allclose(column("local_lipschitz", given, pairing), np.abs(promised + form / 2) / length, rtol=1e-7)
    assert_allclose(column("gradient_jump", given, pairing), smooth * length)


def test_edge_numbers_at_rest_are_2_on_fresh_minibatches_and_lr_h_in_sample(resting):
    fresh = verdict("edge_number", "progress on fresh minibatches", resting)
    assert fresh["estimate"] == pytest.approx(2, rel=0.03)
    assert (fresh["status"], fresh["null_value"]) == ("INCONCLUSIVE", 2.0)
    own = verdict("edge_number", "stable on the minibatch", resting, "next")
    assert own["estimate"] == pytest.approx(0.6, rel=1e-9)
    assert own["status"] == "HOLDS"
    assert verdict("edge_number", "update correlation stays negative", resting)["status"] == "FAILS"
    assert verdict("edge_number", "update correlation stays negative", resting, "next")["status"] == "HOLDS"
    assert column("edge_number", resting, of="ratio_so_far")[-1] == pytest.approx(fresh["estimate"])


@pytest.mark.parametrize(("lr", "status"), [(0.9, "HOLDS"), (2.2, "FAILS")])
def test_in_sample_the_edge_is_at_lr_h_2(lr, status):
    given = tables_of(walk(isotropic(1.0, 3, start=1.0), lr, 150))
    result = verdict("edge_number", "stable on the minibatch", given, "next")
    assert (result["status"], result["estimate"]) == (status, pytest.approx(lr))


def test_steps_uphill_decide_nothing_about_the_edge():
    up = walk(isotropic(1.0, 3, start=1.0), -0.01, 300)
    result = verdict("edge_number", "stable on the minibatch", tables_of(up), "next")
    assert result["status"] == "INCONCLUSIVE"
    assert "below 0" in result["reason"]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("lr", [1e-3, 1e-2])
def test_unpaired_minibatches_show_a_law_of_the_noise_that_is_never_judged(momentum, lr):
    w = walk(isotropic(0.01, 5000, 1.0), lr, 60, momentum, seed=13)
    measured = measure(METRICS["smoothness"], tables_of(w, ("previous", "unpaired")))
    spurious = column("", measured.table, "unpaired")[40:]
    assert spurious.mean() * lr == pytest.approx(np.sqrt(2 * (1 - momentum**2)), rel=0.03)
    assert_allclose(column("", measured.table), 0.01, rtol=1e-9)
    assert set(measured.verdicts.filter(pairing="unpaired")["status"]) == {"NOT APPLICABLE"}


def test_noise_of_the_hessian_biases_smoothness_up():
    problem = Problem(f=lambda x, z: float(z[0] * x @ x / 2), grad=lambda x, z: z[0] * x, start=np.ones(2))
    x = np.random.default_rng(0).normal(size=(42, 2))
    w = Walk(problem, x, [np.array([1.0 + 2 * (t % 2)]) for t in range(41)], np.zeros((41, 2)), {"lr": 0.1})
    squared = column("smoothness", tables_of(w)) ** 2
    assert squared.mean() == pytest.approx(5)  # E h² of curvatures 1 and 3; the population's is (E h)² = 4


@pytest.mark.parametrize("lr", [0.3, 0.01])
def test_a_kink_has_the_law_of_the_edge_without_any_curvature(lr):
    given = tables_of(walk(kink(lr / 3), lr, 60))
    for pairing in ("previous", "next"):
        assert_allclose(column("smoothness", given, pairing), 2 / lr)
        assert_allclose(column("gradient_jump", given, pairing), 2)
        assert_allclose(column("curvature_alignment", given, pairing), 1)
        assert_allclose(column("edge_number", given, pairing), 2)
        assert verdict("smoothness", "below 2/lr", given, pairing)["estimate"] == pytest.approx(2)


def test_the_rate_of_an_in_sample_pair_is_that_of_the_step_that_leaves():
    w = walk(isotropic(4.0, 2, 0.1, start=1.0), 0.1, 40)
    given = tables_of(Walk(w.problem, w.x, w.z, w.m, {**w.records, "lr": [0.1] * 20 + [0.9] * 20}))
    assert_allclose(column("smoothness", given, "next", of="two_over_lr"), 2 / np.repeat([0.1, 0.9], 20))
    assert_allclose(column("smoothness", given, of="two_over_lr"), 2 / np.repeat([0.1, 0.9], 20)[:-1])
    assert verdict("smoothness", "below 2/lr", given, "next")["violations"] == 20
    assert verdict("smoothness", "below 2/lr", given)["violations"] == 19


@pytest.mark.parametrize(("lr", "status"), [(0.3, "HOLDS"), (0.6, "FAILS")])
def test_steps_are_adapted_where_lr_is_below_2_over_directional_smoothness(lr, status):
    given = tables_of(walk(isotropic(4.0, 3, 0.1, start=1.0), lr, 400))
    result = verdict("directional_smoothness", "adapted steps", given, "next")
    assert (result["status"], result["estimate"]) == (status, pytest.approx(4 * lr))


def test_the_sum_of_tensor_norms_lies_between_the_tensors_own_ratios():
    d, dg = np.array([[3.0, 0.1], [1.0, 2.0]]), np.array([[1.0, 7.0], [1.0, 1.0]])  # tensor norms at two steps
    rows = {"d_norms": d.sum(1), "dg_norms": dg.sum(1), "d_d": (d**2).sum(1), "dg_dg": (dg**2).sum(1)}
    found = column("smoothness", rows_of(rows), of="authors_2023")
    assert_allclose(found, dg.sum(1) / d.sum(1))
    assert ((dg / d).min(1) <= found).all()
    assert (found <= (dg / d).max(1)).all()


def test_the_variants_summaries_are_the_largest_and_the_uncorrected_mean_of_a_window():
    values = pl.DataFrame({"value": [1.0, 4.0, 2.0, float("nan")]})
    variants = {v.name: v.summary for v in METRICS["smoothness"].variants}
    assert values.select(variants["authors_2023"]).item() == 4
    from_zero = 0.0
    for value in (1, 4, 2):
        from_zero = 0.99 * from_zero + 0.01 * value
    assert values.select(variants["authors_2023_mean"]).item() == pytest.approx(from_zero, rel=1e-12)


def test_exponential_loss_has_l1_of_a_finite_step():
    step = 0.2
    given = tables_of(along(np.arange(-3, 3, step), lambda x: np.exp(-x), lambda x: -np.exp(-x)))
    assert_allclose(column("l0_l1", given), (1 - np.exp(-step)) / step, rtol=1e-9)


def test_cosh_has_l0_and_l1_of_1_and_a_quartic_grows_like_the_power_two_thirds():
    points = np.arange(-4, 4, 1e-4)[::40]
    near = np.column_stack([points, points + 1e-6]).ravel()
    slopes = np.abs(np.sinh(near))
    found = column("l0_l1", tables_of(along(near, np.cosh, np.sinh), ("next",)), "next")[::2] * slopes[:-1:2]
    assert (found <= 1 + slopes[:-1:2] + 1e-5).all()
    assert_allclose(found, np.sqrt(1 + slopes[:-1:2] ** 2), rtol=1e-5)
    near = np.column_stack([points, points + 1e-6]).ravel()[len(points) + 200 :]  # to the right of 0
    cubes = near[:-1:2] ** 3
    found = column("l0_l1", tables_of(along(near, lambda x: x**4 / 4, lambda x: x**3), ("next",)), "next")[::2]
    assert np.polyfit(np.log(cubes), np.log(found * cubes), 1)[0] == pytest.approx(2 / 3, rel=1e-3)


def _bent(x):
    return (1 + np.abs(x)) ** 2 / 2


def _bent_slope(x):
    return np.sign(x) * (1 + np.abs(x))


def test_semi_smoothness_across_a_kink_does_not_vanish_with_the_step():
    steps = np.geomspace(1e-3, 2, 30)
    points = np.column_stack([np.full(30, 1e-12), -steps]).ravel()
    found = column("semi_smoothness", tables_of(along(points, _bent, _bent_slope), ("next",)), "next")[::2]
    assert_allclose(found, 2 * np.sqrt(2) * np.sqrt(0.5) + steps / 2, rtol=1e-9)  # C1 √f + C2 ‖d‖, tight


def test_semi_smoothness_of_any_step_obeys_its_constants():
    points = np.random.default_rng(43).uniform(-3, 3, size=1000)
    given = tables_of(along(points, _bent, _bent_slope), ("next",))
    bound = 2 * np.sqrt(2) * np.sqrt(_bent(points[:-1])) + np.abs(np.diff(points)) / 2
    assert (column("semi_smoothness", given, "next") <= bound + 1e-9).all()


def fitted(name, claim, points, f, slope):
    """Constant and slope of the envelope, as the verdict words them."""
    result = verdict(name, claim, tables_of(along(points, f, slope), ("next",)), "next")
    constants = result["reason"].partition("envelope of the first half: ")[2].split(" + ")
    return result["status"], [float(part.split()[0]) for part in constants]


def test_the_envelopes_find_the_constants_of_known_losses():
    random = np.random.default_rng(5)
    across = np.column_stack([np.full(600, 1e-12), -random.uniform(0.05, 2, size=600)]).ravel()
    status, (c2, c1) = fitted("semi_smoothness", "semi-smooth", across, _bent, _bent_slope)
    assert (status, c2, c1) == ("HOLDS", pytest.approx(0.5, rel=1e-3), pytest.approx(2 * np.sqrt(2), rel=1e-3))
    claim, apart = "affine in the step length", random.normal(size=1201)
    status, (jump, smooth) = fitted("gradient_jump", claim, apart, lambda x: x**2, lambda x: 2 * x)
    assert (status, jump, smooth) == ("HOLDS", pytest.approx(0, abs=1e-6), pytest.approx(2))
    status, (jump, smooth) = fitted("gradient_jump", claim, across, np.abs, np.sign)
    assert (status, jump, smooth) == ("HOLDS", pytest.approx(2), pytest.approx(0, abs=1e-6))


def test_the_envelope_of_an_exponential_loss_has_no_l0_and_the_slope_of_a_finite_step():
    points = np.concatenate([np.arange(2, -2, -0.1), np.arange(2, -2, -0.1)] * 15)  # 0.1 to the left, and back again
    down = fitted("l0_l1", "(L0, L1)-smooth", points, lambda x: np.exp(-x), lambda x: -np.exp(-x))
    assert down == ("HOLDS", [pytest.approx(0, abs=1e-3), pytest.approx((np.exp(0.1) - 1) / 0.1, rel=1e-3)])


@pytest.mark.parametrize(
    ("name", "claim"),
    [
        ("l0_l1", "(L0, L1)-smooth"),
        ("l0_l1", "smooth in the loss"),
        ("semi_smoothness", "semi-smooth"),
        ("gradient_jump", "affine in the step length"),
    ],
)
def test_a_second_half_above_the_envelope_of_the_first_fails(name, claim):
    random, n = np.random.default_rng(8), 800
    for growth, status in ((1.0, "HOLDS"), (2.0, "FAILS")):
        size = random.uniform(0.5, 1, size=n) * np.repeat([1.0, growth], n // 2)
        rows = {"dg_dg": size**2, "loss_x": 1 + size, "loss_y": np.ones(n), "gy_d": np.zeros(n)}
        given = rows_of({**rows, "gx_gx": np.ones(n), "gy_gy": np.ones(n)})
        result = verdict(name, claim, given)
        assert result["status"] in ({"HOLDS", "INCONCLUSIVE"} if status == "HOLDS" else {"FAILS"})


def test_one_step_above_2_over_lr_spoils_every_step_but_not_99_percent():
    sharp = np.where(np.arange(1000) == 500, 30.0, 1.0)
    given = rows_of({"dg_dg": sharp**2, "gx_gx": np.ones(1000), "gy_gy": np.ones(1000)})
    assert verdict("smoothness", "below 2/lr", given)["violations"] == 1
    assert verdict("smoothness", "below 2/lr", given)["status"] == "FAILS"
    assert verdict("smoothness", "below 2/lr at 99 % of the steps", given)["status"] == "HOLDS"
    often = rows_of({"dg_dg": np.full(1000, 900.0), "gx_gx": np.ones(1000), "gy_gy": np.ones(1000)})
    assert verdict("smoothness", "below 2/lr at 99 % of the steps", often)["status"] == "FAILS"


@pytest.mark.parametrize("distance", [1e-1, 1e-3])
def test_reference_smoothness_needs_one_minibatch_at_both_points(distance):
    size, h = 4000, 2.0
    random = np.random.default_rng(17)
    away = random.normal(size=size)
    away *= distance / np.linalg.norm(away)
    z, other = random.normal(size=(2, size))
    for at_reference, expected, rtol in ((z, h, 1e-6), (other, np.sqrt(2 * size) / distance, 0.05)):
        dg = h * away + z - at_reference
        given = rows_of({"d_d": [distance**2], "dg_dg": [dg @ dg]}, "reference:last")
        found = column("reference_smoothness", given, "reference:last")
        assert found[0] == pytest.approx(expected, rel=rtol)


def test_reference_smoothness_meets_the_rate_of_the_step_that_leaves():
    n = 300
    products = {"dg_dg": np.full(n, 9.0), "gx_gx": np.ones(n), "gy_gy": np.ones(n)}
    for lr, status in ((0.5, "HOLDS"), (0.9, "FAILS")):
        given = rows_of(products, "reference:last", {"lr": [lr] * (n + 1)})
        result = verdict("reference_smoothness", "below 2/lr", given, "reference:last")
        assert (result["status"], result["estimate"]) == (status, pytest.approx(3 * lr))


def test_what_adam_and_a_reference_see_grow_fails():
    for growth, status in ((2.0, "FAILS"), (0.5, "HOLDS")):
        size = np.random.default_rng(0).uniform(1, 1.5, size=800) * np.repeat([1.0, growth], 400)
        rows = {"dg_dg": size**2, "gx_gx": np.ones(800), "gy_gy": np.ones(800)}
        reference = rows_of(rows, "reference:last")
        found = verdict("reference_smoothness", "does not keep growing", reference, "reference:last")
        assert found["status"] == status
        adam = rows_of({**rows, "qq_adam": size**2, "dd_adam": np.ones(800)}, optimizer_class="Adam")
        assert verdict("smoothness_adam", "does not keep growing", adam)["status"] == status


GROWING = ["smoothness", "directional_smoothness", "local_lipschitz", "smoothness_linf"]


@pytest.mark.parametrize("name", GROWING)
def test_what_grows_along_a_quartic_fails_and_what_falls_does_not(name):
    x = np.random.default_rng(0).random(801) + np.repeat([1.0, 2.0], [400, 401])
    for points, status in ((x, "FAILS"), (x[::-1], "HOLDS")):
        given = tables_of(along(points, lambda v: v**4 / 4, lambda v: v**3), ("previous",))
        for claim in METRICS[name].claims:
            if claim.over == "trend":
                assert verdict(name, claim.name, given)["status"] == status


def test_of_a_linear_loss_nothing_is_smooth_or_aligned_beyond_rounding():
    given = tables_of(walk(Problem(lambda x, _: float(x.sum()), lambda x, _: np.ones(2), np.zeros(2)), 0.1, 50))
    assert_allclose(column("smoothness", given), 0)
    assert_allclose(column("edge_number", given), 0)
    assert_allclose(column("directional_smoothness", given), 0, atol=1e-12)
    assert np.isnan(column("curvature_alignment", given)).all()


def test_sign_descent_on_a_diagonal_hessian_has_its_trace():
    h = np.array([0.5, 2.0, 7.0, 0.1])
    problem = quadratic(np.diag(h), np.array([1.0, -2.0, 0.3, 4.0]))
    x = [problem.start]
    for _ in range(20):
        x.append(x[-1] - 0.01 * np.sign(h * x[-1]))
    w = Walk(problem, np.array(x), [np.zeros(4)] * 20, np.zeros((20, 4)), {"lr": 0.01})
    given = tables_of(w, ("previous",))
    assert_allclose(column("smoothness_linf", given), h.sum())
    assert_allclose(column("smoothness_linf", given, of="curvature"), h.sum())


def test_in_adams_metric_a_diagonal_quadratic_is_at_most_its_largest_preconditioned_curvature():
    random = np.random.default_rng(4)
    h, root = random.uniform(0.1, 5, size=8), random.uniform(0.1, 2, size=8)
    d = random.normal(size=(50, 8))
    d[0] = np.eye(8)[np.argmax(h / root)]
    q = h * d
    rows = {"dg_d": (q * d).sum(1), "dd_adam": (root * d**2).sum(1), "qq_adam": (q**2 / root).sum(1)}
    given = rows_of(rows, optimizer_class="torch.optim.adamw.AdamW")
    found = column("smoothness_adam", given)
    assert (found <= (h / root).max() * (1 + 1e-12)).all()
    assert found[0] == pytest.approx((h / root).max())
    assert (column("smoothness_adam", given, of="curvature") <= found * (1 + 1e-12)).all()


@pytest.mark.parametrize(("sharpness", "status"), [(30.0, "HOLDS"), (50.0, "FAILS")])
def test_adams_limit_is_38_over_lr_at_beta_09(sharpness, status):
    lr, n = 0.01, 300
    rows = {"dd_adam": np.ones(n), "qq_adam": np.full(n, (sharpness / lr) ** 2)}
    rows |= dict.fromkeys(("dg_dg", "gx_gx", "gy_gy"), np.ones(n))
    steps = {"lr": [lr] * (n + 1), "betas.0": [0.9] * (n + 1)}
    result = verdict("smoothness_adam", "below Adam's limit", rows_of(rows, steps=steps, optimizer_class="AdamW"))
    assert (result["status"], result["estimate"]) == (status, pytest.approx(2 * sharpness / 38))
    plain = verdict("smoothness_adam", "below Adam's limit", rows_of(rows, steps=steps))
    assert plain["status"] == "NOT APPLICABLE"
