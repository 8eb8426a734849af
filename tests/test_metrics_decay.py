"""Variants of metrics that are about f + λ‖x‖²/2, what coupled weight decay makes steps descend."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from analysis.decay import decay_rise, decay_slope
from analysis.measure import measure
from analysis.metric import Metric
from tests.problems import Problem, logistic
from tests.walks import METRICS, of, tables_of, verdict, walk

pytestmark = pytest.mark.usefixtures("path_taken")

DECAY = 0.05
REGULARIZED = sorted(name for name, m in METRICS.items() if any(v.name == "regularized" for v in m.variants))


def decayed(problem):
    """The same loss with its penalty in it."""
    return Problem(
        f=lambda x, z: problem.f(x, z) + DECAY / 2 * float(x @ x),
        grad=lambda x, z: problem.grad(x, z) + DECAY * x,
        start=problem.start,
        draw=problem.draw,
    )


@pytest.fixture(scope="module")
def both(path_taken):
    """Tables of one walk: of the loss with its decay recorded beside it, and of the loss with its decay in it."""
    plain = logistic(4)
    whole = decayed(plain)
    x, z = walk(whole, 0.3, 60, seed=2)
    references = {"last": x[-1], "run:other": np.linspace(-1, 2, len(x[0]))}

    def halves(x, z):
        scale = np.linspace(0.5, 1.5, len(x))
        return scale * plain.grad(x, z), (2 - scale) * plain.grad(x, z)

    decay = {"weight_decay": DECAY}
    one = tables_of(plain, x, z, references, 0.3, halves, records=decay)
    other = tables_of(
        whole, x, z, references, 0.3, lambda x, z: tuple(half + DECAY * x for half in halves(x, z)), records=decay
    )
    return one, other


@pytest.mark.parametrize("name", REGULARIZED)
def test_a_regularized_variant_is_the_value_on_the_loss_with_its_penalty(both, name):
    one, other = both
    kinds = {"previous": ["previous"], "next": ["next"], "reference": ["reference:last", "reference:run:other"]}
    compared = 0
    for pairing in (p for kind in METRICS[name].pairings for p in kinds[kind]):
        found, want = of(name, one, pairing, "regularized"), of(name, other, pairing)
        there = ~np.isnan(found)
        compared += there.sum()
        assert there.sum() in (0, (~np.isnan(want)).sum())
        assert_allclose(found[there], want[there], rtol=1e-9, atol=1e-12)
        assert not there.any() or not np.allclose(found[there], of(name, one, pairing)[there], rtol=1e-4)
    assert compared > 50


def test_the_ratio_of_the_sums_is_that_of_the_loss_with_its_penalty(both):
    one, other = both
    found = of("convexity_ratio", one, "reference:run:other", "regularized_ratio")
    assert_allclose(found, of("convexity_ratio", other, "reference:run:other", "cumulative_ratio"), rtol=1e-9)


def test_tables_of_before_the_norm_was_stored_and_decoupled_decay_lack_the_variant_and_keep_the_rest(both):
    one, _ = both
    at = "reference:last"
    old = replace(one, geometry=one.geometry.drop("y_y"))
    apart = replace(one, facts=replace(one.facts, optimizer_flags=("decoupled_weight_decay",)))
    for given in (old, apart):
        assert np.isnan(of("restricted_secant", given, at, "regularized")).all()
        assert_allclose(of("restricted_secant", given, at), of("restricted_secant", one, at))
        found, want = (verdict("restricted_secant", "positive on average", t, at) for t in (given, one))
        assert found["status"] == want["status"]
    assert_allclose(of("reference_gap", old, at, "regularized"), of("reference_gap", one, at, "regularized"))


def test_near_points_cancel_no_further_than_is_said():
    random = np.random.default_rng(6)
    reference = random.normal(size=2000) + 10
    x = reference + 1e-7 * random.normal(size=(8, 2000))
    flat = Problem(f=lambda x, z: 0.0, grad=lambda x, z: 0 * x, start=x[0])
    given = tables_of(flat, x, [np.zeros(0)] * 7, {"run:near": reference}, records={"weight_decay": DECAY})
    allowed = 50 * np.sqrt(2000) * 2**-53 * DECAY * (reference @ reference)
    units = METRICS["reference_slope"].units
    wide, far = (np.asarray(v, np.longdouble) for v in (x[:-1], reference))
    exact = {
        "slope": (decay_slope, DECAY * (wide * (wide - far)).sum(axis=1)),
        "rise": (decay_rise, DECAY / 2 * ((wide - far) * (wide + far)).sum(axis=1)),
    }
    for name, (formula, want) in exact.items():
        table = measure(Metric(name=name, units=units, value=formula, pairings=("reference",)), given).table
        assert np.abs(table["value"].to_numpy() - want).max() < allowed < np.abs(want).max()
