"""Answers known exactly, by torch's own optimizers: tracer, files, geometry, metric, verdict. To 1e-9 in float64."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from numpy.testing import assert_allclose

from analysis.geometry import geometry
from analysis.measure import measure, measure_all
from analysis.registry import metrics
from tests.replay_problems import HESSIAN, record
from tests.replayed_run import replayed
from tracer import Tracer
from tracer.replay.replay import Asked
from tracer.store import Trace

METRICS = metrics()
STEPS = 60
LOW, HIGH = np.linalg.eigvalsh(HESSIAN)[[0, -1]]
OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "heavy ball": lambda p, lr: torch.optim.SGD(p, lr=lr / 3, momentum=0.9),
    "nesterov": lambda p, lr: torch.optim.SGD(p, lr=lr / 3, momentum=0.9, nesterov=True),
    "adamw": lambda p, lr: torch.optim.AdamW(p, lr=lr / 6, weight_decay=0.1),
}
MINIMUM = "reference:point:minimum"
MEASURED = (
    *("convexity_gap", "forward_gap", "trapezoid_gap", "directional_curvature", "smoothness", "reference_gap"),
    *("convexity_ratio", "restricted_secant", "error_bound", "jensen_gap", "polyak_lojasiewicz_full", "loss_change"),
    *("curvature_alignment", "weak_convexity", "progress_ratio", "strong_convexity", "quadratic_growth"),
)


def points(path):
    return np.concatenate([chunk.x for chunk in Trace(path).chunks()]).astype(float)


def form(e):
    return np.einsum("...i,ij,...j->...", e, HESSIAN, e)


def close(found, want):
    assert_allclose(found, want, rtol=1e-9, atol=1e-9 * np.abs(want).max())


@pytest.fixture(scope="module", params=OPTIMIZERS)
def quadratic(request, tmp_path_factory):
    """xᵀHx/2 without noise: what was measured, the points x_0 … x_T, and the losses and gradients there."""
    folder = tmp_path_factory.mktemp("quadratic")
    np.save(folder / "minimum.npy", np.zeros(5))
    with pytest.MonkeyPatch.context() as patch:
        still = {"z": torch.zeros(5, dtype=torch.float64)}
        patch.setattr("tests.replay_problems.Quadratic.draw", lambda self, random: still)
        path = record(
            folder / "run", "quadratic", STEPS, 0.3, optimizer=OPTIMIZERS[request.param], probes=["look_back"]
        )
    asked = Asked(references=(f"point:{folder / 'minimum.npy'}", "last"), gradients=True, jensen=STEPS, full_batch=1)
    tables, found = replayed(path, asked)
    return measure_all([METRICS[n] for n in MEASURED], replace(tables, replayed=found)), points(path)


def column(found, name, pairing="previous", of="value"):
    table = found[name].table
    chosen = (pl.col("pairing").cast(pl.String) == pairing) & (pl.col("block").cast(pl.String) == "model")
    return table.filter(chosen).sort("step")[of].to_numpy()


def test_along_its_steps_a_quadratic_has_its_hessian(quadratic):
    found, x = quadratic
    d = np.diff(x[:STEPS], axis=0)
    close(column(found, "convexity_gap"), -form(d) / 2)
    close(column(found, "forward_gap"), form(d) / 2)
    close(column(found, "trapezoid_gap"), column(found, "convexity_gap"))
    curvature = form(d) / (d * d).sum(axis=1)
    smoothness = np.linalg.norm(d @ HESSIAN, axis=1) / np.linalg.norm(d, axis=1)
    close(column(found, "directional_curvature"), curvature)
    close(column(found, "smoothness"), smoothness)
    close(column(found, "curvature_alignment"), curvature / smoothness)
    assert (curvature >= LOW - 1e-9).all()
    assert (np.abs(curvature) <= smoothness + 1e-12).all()
    assert (smoothness <= HIGH + 1e-9).all()
    assert (column(found, "weak_convexity") <= 0).all()


def test_towards_its_minimiser_the_ratio_is_2_and_towards_the_last_point_what_the_form_says(quadratic):
    found, x = quadratic
    at = x[:STEPS]
    loss = form(at) / 2
    close(column(found, "convexity_ratio", MINIMUM), np.full(STEPS, 2.0))
    close(column(found, "convexity_ratio", MINIMUM, "cumulative_ratio"), np.full(STEPS, 2.0))
    close(column(found, "reference_gap", MINIMUM), -loss)
    last = x[STEPS]
    e, above = at - last, loss - form(last) / 2
    wanted = 1 + form(e).sum() / 2 / above.sum()
    assert column(found, "convexity_ratio", "reference:last", "cumulative_ratio")[-1] == pytest.approx(wanted, rel=1e-9)
    close(column(found, "reference_gap", "reference:last"), -form(e) / 2)


def test_one_sided_constants_are_rayleigh_quotients_between_the_smallest_and_the_largest(quadratic):
    found, x = quadratic
    at = x[:STEPS]
    ee, loss = (at * at).sum(axis=1), form(at) / 2
    close(column(found, "restricted_secant", MINIMUM), form(at) / ee)
    close(column(found, "strong_convexity", MINIMUM), form(at) / ee)
    close(column(found, "quadratic_growth", MINIMUM), form(at) / ee)
    gradient = at @ HESSIAN
    close(column(found, "error_bound", MINIMUM), (gradient**2).sum(axis=1) / ee)
    constant = column(found, "polyak_lojasiewicz_full")
    close(constant, ((gradient**2).sum(axis=1) / (2 * loss))[1:])  # beside pairs with the step before
    assert ((constant >= LOW - 1e-9) & (constant <= HIGH + 1e-9)).all()


def test_the_mean_point_is_better_by_half_the_spread(quadratic):
    found, x = quadratic
    at = x[:STEPS]
    gap = column(found, "jensen_gap", of="on_minibatches")  # all of its points, without noise here
    assert gap[np.isfinite(gap)].item() == pytest.approx(-form(at - at.mean(axis=0)).mean() / 2, rel=1e-9)


def test_verdicts_on_a_quadratic_are_those_of_a_convex_loss(quadratic):
    found, _ = quadratic
    for name in ("convexity_gap", "forward_gap", "reference_gap"):
        judged = found[name].verdicts.filter(pl.col("rule") != "none")
        assert set(judged["status"]) <= {"HOLDS", "INCONCLUSIVE", "NOT APPLICABLE"}
    every = found["convexity_gap"].verdicts.filter(claim="convex at every step", pairing="previous")
    assert every["violations"].item() == 0


def test_modes_of_gradient_descent_shrink_by_one_minus_lr_times_their_curvature(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tests.replay_problems.Quadratic.draw", lambda self, random: {"z": torch.zeros(5, dtype=torch.float64)}
    )
    x = points(record(tmp_path / "run", "quadratic", 25, 0.3))
    curvature, modes = np.linalg.eigh(HESSIAN)
    close(x @ modes, (x[0] @ modes) * (1 - 0.3 * curvature) ** np.arange(26)[:, None])


# --- gradients of no loss at all ------------------------------------------------------------------------------------


def on_given_gradients(path, gradients, make, start=None, dtype=torch.float64, **options):
    """A run whose gradients are ``gradients``, shape ``(n, d)``, wherever it stands."""
    n, d = gradients.shape
    at = torch.nn.Parameter(torch.zeros(d, dtype=dtype) if start is None else torch.tensor(start, dtype=dtype))
    model = torch.nn.ParameterList([at])
    optimizer = make(model.parameters())
    with Tracer(path, model, optimizer, **options) as tracer:
        for t in range(n):
            optimizer.zero_grad()
            tracer.loss(lambda g=gradients[t]: torch.as_tensor(g, dtype=dtype) @ at, batch=t).backward()
            optimizer.step()
    return path


@pytest.mark.parametrize("b", [0.0, 0.9])
def test_slopes_towards_any_point_are_a_telescope_and_gradient_energy_whatever_the_gradients(tmp_path, b):
    lr, n, d = 0.1, 50, 7
    random = np.random.default_rng(5)
    g, u = random.normal(size=(n, d)), random.normal(size=d)
    np.save(tmp_path / "u.npy", u)
    path = on_given_gradients(
        tmp_path / "run", g, lambda p: torch.optim.SGD(p, lr=lr, momentum=b), start=random.normal(size=d)
    )
    x = points(path)
    tables = geometry(Trace(path), references=(f"point:{tmp_path / 'u.npy'}", "last"))
    slopes = measure(METRICS["reference_slope"], tables).table
    moved = np.vstack([np.zeros(d), np.diff(x, axis=0)])  # d_t of x_0 … x_T
    z, rate = x + b / (1 - b) * moved, lr / (1 - b)
    turned = b / (1 - b) * (g * moved[:n]).sum()
    for pairing, at in (("reference:point:u", u), ("reference:last", x[-1])):
        telescope = (((z[0] - at) ** 2).sum() - ((z[-1] - at) ** 2).sum()) / (2 * rate)
        wanted = telescope + rate / 2 * (g**2).sum() - turned
        found = slopes.filter(pl.col("pairing").cast(pl.String) == pairing)["cumulative"][-1]
        assert found == pytest.approx(wanted, rel=1e-9)
        if pairing == "reference:last" and not b:
            assert found > 0, "a sum of squares, for any gradients"


def test_noise_alone_gives_adam_a_numerator_that_grows_with_the_number_of_parameters(tmp_path):
    lr, n, d = 1e-3, 250, 600
    random = np.random.default_rng(0)
    sizes = np.exp(random.normal(size=d))
    path = on_given_gradients(
        tmp_path / "run", random.normal(size=(n, d)) * sizes, lambda p: torch.optim.Adam(p, lr=lr), chunk_bytes=1 << 22
    )
    slopes = measure(METRICS["reference_slope"], geometry(Trace(path), references=("last",))).table
    numerator = slopes.filter(pl.col("pairing").cast(pl.String) == "reference:last")["cumulative"][-1]
    assert numerator / (lr * n * sizes.sum()) == pytest.approx(1.0, abs=0.15)


# --- a convex loss on minibatches -----------------------------------------------------------------------------------


def test_on_logistic_regression_only_unpaired_minibatches_look_non_convex(tmp_path):
    random = np.random.default_rng(31)
    n, d, batch, steps = 400, 8, 16, 300
    rows = random.normal(size=(n, d))
    rows *= np.sign(rows @ random.normal(size=d) + 0.5 * random.normal(size=n))[:, None]
    a = torch.tensor(rows)
    w = torch.nn.Parameter(torch.zeros(d, dtype=torch.float64))
    model = torch.nn.ParameterList([w])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    chosen = random.integers(0, n, (steps, batch))
    with Tracer(tmp_path / "run", model, optimizer, probes=["look_back"]) as tracer:
        for t in range(steps):
            optimizer.zero_grad()
            tracer.loss(lambda z=a[chosen[t]]: torch.nn.functional.softplus(-z @ w).mean(), batch=t).backward()
            optimizer.step()
    tables = geometry(Trace(tmp_path / "run"))
    found = measure_all([METRICS["convexity_gap"], METRICS["smoothness"]], tables)
    assert (column(found, "convexity_gap") <= 1e-14).all()
    assert (column(found, "convexity_gap", "unpaired") > 0).mean() > 0.2
    assert set(found["convexity_gap"].verdicts.filter(pairing="unpaired")["status"]) == {"NOT APPLICABLE"}
    largest = np.array([np.linalg.eigvalsh(z.T @ z / (4 * batch))[-1] for z in rows[chosen[1:]]])
    assert (column(found, "smoothness") <= largest + 1e-12).all()


# --- what short numbers hide ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_gap_below_the_resolution_of_the_loss_is_flagged_and_the_gradients_know_it(tmp_path, dtype):
    """h‖x‖²/2 with steps of one part in ten thousand: the loss difference is wrong, the gradients' is right to 2 %."""
    h, lr, steps = 0.5, 1e-4, 40
    torch.manual_seed(0)
    w = torch.nn.Parameter(torch.randn(5000).to(dtype))
    model = torch.nn.ParameterList([w])

    class Signs(torch.optim.SGD):
        """Steps of one length in every coordinate."""

        def step(self, closure=None):
            with torch.no_grad():
                w.sub_(lr * w.grad.sign())

    optimizer = Signs(model.parameters(), lr=lr)
    with Tracer(tmp_path / "run", model, optimizer, probes=["look_back"], changed_updates="record") as tracer:
        for t in range(steps):
            optimizer.zero_grad()
            tracer.loss(lambda: h / 2 * w.square().sum(), batch=t).backward()
            optimizer.step()
    tables = geometry(Trace(tmp_path / "run"))
    found = measure_all([METRICS["convexity_gap"], METRICS["trapezoid_gap"]], tables)
    d = np.diff(points(tmp_path / "run")[:steps], axis=0)
    exact = -h * (d**2).sum(axis=1) / 2
    gap, tolerance = column(found, "convexity_gap"), column(found, "convexity_gap", of="tolerance")
    assert (tolerance > np.abs(exact)).all(), "said to be unresolved"
    assert np.abs(gap - exact).max() > 0.3 * np.abs(exact).max(), "and so it is"
    if dtype is torch.float32:
        assert_allclose(column(found, "trapezoid_gap"), exact, rtol=0.02)
    judged = found["convexity_gap"].verdicts.filter(claim="convex at every step", pairing="previous")
    assert judged["status"].item() != "FAILS"
