"""Losses with closed forms, recorded, replayed, reduced and measured: every value to a millionth."""

import numpy as np
import polars as pl
import pytest
from numpy.testing import assert_allclose

from analysis.measure import measure_all
from analysis.registry import metrics
from tests import replay_problems
from tests.replay_problems import record
from tests.replayed_run import replayed
from tracer.replay.replay import Asked
from tracer.store import Trace

CLOSE = {"rtol": 1e-6, "atol": 1e-6}


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """Record a problem of tests/replay_problems.py from a start, replay it, measure it."""

    def run(name, start, steps, lr, reference, measured, **asked):
        problem = getattr(replay_problems, name)
        monkeypatch.setattr(problem, "start", start)
        path = record(tmp_path / name, name, steps, lr, probes=["look_back"])
        np.save(tmp_path / "there.npy", np.atleast_1d(np.array(reference, float)))
        question = Asked(references=[f"point:{tmp_path / 'there.npy'}"], gradients=True, **asked)
        tables, found = replayed(path, question)
        known = metrics()
        x = np.concatenate([chunk.x for chunk in Trace(path).chunks()])
        return x, measure_all([known[name] for name in measured], tables), found

    return run


def values(measured, pairing="reference:point:there", of="value"):
    return measured.table.filter(pl.col("pairing").cast(pl.String) == pairing)[of].to_numpy()


def test_the_absolute_value_looks_like_an_edge_and_is_none(ran):
    a, lr = 0.1, 0.3
    names = ("smoothness", "directional_curvature", "convexity_gap", "update_correlation", "convexity_ratio")
    x, found, tables = ran("kink", a, 41, lr, 0.0, (*names, "reference_gap"), profile=4)
    for name in names[:2]:
        assert_allclose(values(found[name], "previous"), np.full(40, 2 / lr), **CLOSE)
    assert_allclose(
        values(found["convexity_gap"], "previous"), np.where(np.arange(40) % 2, -2 * (lr - a), -2 * a), **CLOSE
    )
    assert_allclose(values(found["update_correlation"], "previous"), np.full(40, lr), **CLOSE)
    windows = found["convexity_ratio"].windows.filter(pl.col("pairing").cast(pl.String) == "reference:point:there")
    assert_allclose(windows["ratio"].to_numpy(), 1, **CLOSE)
    assert_allclose(values(found["reference_gap"]), 0, **CLOSE)
    segments = tables.segments().collect()
    assert_allclose(segments["change"].to_numpy(), np.diff(np.abs(x[:41, 0])), **CLOSE)
    assert (segments["residual"].abs() > 1e-3).all(), "no quadrature sees where a kink is"
    assert (segments["residual"].abs() < 2 * lr / 4).all()


def test_a_star_convex_loss_is_convex_towards_0_and_not_along_its_steps(ran):
    names = ("reference_gap", "convexity_ratio", "convexity_gap", "quasar")
    x, found, tables = ran("star", 6.0, 60, 0.2, 0.0, names, sharpness=1)
    a = np.abs(x[:60, 0])
    assert_allclose(values(found["reference_gap"]), -(a**2) * np.exp(-a), **CLOSE)
    for name in ("convexity_ratio", "quasar"):
        assert_allclose(values(found[name]), 1 + a / np.expm1(a), **CLOSE)
    gaps = values(found["convexity_gap"], "previous")
    beyond = (a[1:] > 2) & (a[:-1] > 2)
    assert beyond.sum() > 10
    assert (gaps[beyond] > 0).all()
    assert (gaps[(a[1:] < 2) & (a[:-1] < 2)] < 0).all()
    curvature = tables.sharpness().filter(objective="full").collect()["eigenvalue"].to_numpy()
    assert_allclose(curvature, (2 - a) * np.exp(-a), **CLOSE)


def test_its_weak_convexity_is_exp_minus_3_at_3(ran):
    x, found, tables = ran("star", 3.0011, 2, 0.002, 0.0, ("weak_convexity",), profile=2)
    assert x[0, 0] > 3 > x[1, 0]
    assert_allclose(values(found["weak_convexity"], "previous"), np.exp(-3), **CLOSE)
    segment = tables.segments().collect()
    assert_allclose(segment["curvature_low"].to_numpy(), -np.exp(-3), **CLOSE)
    assert segment["midpoint_defect"].item() > 0


def test_two_layers_descend_by_their_own_laws(ran):
    lr = 0.05
    x, found, tables = ran("two_layer", (1.8, 0.2), 60, lr, (1.0, 1.0), ("convexity_gap",), full_batch=1, profile=2)
    u, v = x.T
    r, square = u * v - 1, u**2 + v**2
    assert_allclose((u**2 - v**2)[1:], ((u**2 - v**2) * (1 - lr**2 * r**2))[:-1], **CLOSE)
    assert_allclose((u * v)[1:], (u * v - lr * r * square + lr**2 * r**2 * u * v)[:-1], **CLOSE)
    full = tables.full_batch().collect()
    assert_allclose((full["g_g"] / (2 * full["loss"])).to_numpy(), square, **CLOSE)
    segments = tables.segments().collect()
    assert_allclose(segments["residual"].to_numpy(), 0, atol=1e-12)
    shares = tables.allocation().filter(pl.col("block") != "model").collect()["allocation"].to_numpy()
    assert_allclose(shares.reshape(-1, 2).sum(axis=1), segments["change"].to_numpy(), **CLOSE)
    gaps = values(found["convexity_gap"], "previous")
    d = np.diff(x[:60], axis=0)
    slope = r[1:60] * (v[1:60] * d[:, 0] + u[1:60] * d[:, 1])
    assert_allclose(gaps, (r[1:60] ** 2 - r[:59] ** 2) / 2 - slope, **CLOSE)


@pytest.mark.parametrize("a", [0.2, 1 / 3, 0.8, 1.5])
def test_from_a_balanced_point_the_ratio_is_four_a_over_one_plus_a(ran, a):
    x, found, _ = ran("two_layer", (a, a), 12, 0.05, (1.0, 1.0), ("convexity_ratio",))
    at = x[:12, 0]
    assert_allclose(at, x[:12, 1], **CLOSE)
    assert_allclose(values(found["convexity_ratio"]), 4 * at / (1 + at), **CLOSE)


@pytest.mark.parametrize(("share", "stays"), [(0.98, True), (1.02, False)])
def test_a_minimum_is_left_where_its_sharpness_is_above_two_over_lr(ran, share, stays):
    start = (2 + 1e-7, 0.5 + 1e-7)
    x, _, tables = ran("two_layer", start, 300, share * 2 / 4.25, (2.0, 0.5), (), sharpness=299)
    first, last = tables.sharpness().filter(objective="full").collect()["eigenvalue"].to_list()
    assert first == pytest.approx(4.25, abs=1e-5)
    if stays:
        assert last == pytest.approx((x[299] ** 2).sum(), abs=1e-6)
        assert last == pytest.approx(4.25, abs=1e-6)
    else:
        assert abs((x[299] ** 2).sum() - 4.25) > 0.01
