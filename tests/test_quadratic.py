"""The whole way on a quadratic with known Hessian: tracer, files, geometry, metric. Every value has a closed form."""

import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import ortho_group

from analysis.geometry import geometry
from analysis.measure import measure
from analysis.measure import values as values_of
from analysis.registry import metrics
from tracer import Tracer
from tracer.store import Trace

SIZE, STEPS = 6, 40
HESSIAN = (lambda q: (q * np.geomspace(0.1, 4.0, SIZE)) @ q.T)(ortho_group.rvs(SIZE, random_state=1))
MINIMISER = np.random.default_rng(2).normal(size=SIZE)
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.3),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.1),
}
DTYPES = {torch.float64: 1e-10, torch.float32: 1e-5}


class Quadratic(torch.nn.Module):
    """f(x) = (x − c)ᵀH(x − c)/2: parameters in two blocks of ``dtype``, arithmetic in float64."""

    def __init__(self, dtype):
        super().__init__()
        start = torch.tensor(np.random.default_rng(3).normal(size=SIZE) * 2, dtype=dtype)
        self.a, self.b = torch.nn.Parameter(start[:2].clone()), torch.nn.Parameter(start[2:].clone())
        self.h, self.c = torch.tensor(HESSIAN, dtype=torch.float64), torch.tensor(MINIMISER, dtype=torch.float64)

    def forward(self):
        e = torch.cat([self.a, self.b]).double() - self.c
        return e @ self.h @ e / 2


@pytest.fixture(scope="module", params=[(o, d) for o in OPTIMIZERS for d in DTYPES], ids=lambda p: f"{p[0]}-{p[1]}")
def recorded(request, tmp_path_factory):
    """Tables of the recorded run, its points in float64, and the relative error allowed."""
    optimizer, dtype = request.param
    tables, points = record(tmp_path_factory.mktemp("quadratic") / "run", Quadratic(dtype), optimizer)
    return tables, points, DTYPES[dtype]


def record(path, model, optimizer):
    opt = OPTIMIZERS[optimizer](list(model.parameters()))
    with Tracer(path, model, opt, probes=["look_back"], chunk_bytes=1000) as tracer:
        for _ in range(STEPS):
            opt.zero_grad()
            tracer.loss(model).backward()
            opt.step()
    trace = Trace(path)
    points = np.concatenate([c.x for c in trace.chunks()]).astype(np.float64)[:STEPS]
    return geometry(trace), points


def values(recorded, name, block="model"):
    table = values_of(metrics()[name], recorded[0]).collect()
    return table.filter(pairing="previous", block=block).sort("step")["value"].to_numpy()


def agree(found, want, relative):
    assert np.abs(found - want).max() <= relative * np.abs(want).max()


def test_the_trajectory_is_the_optimizers(recorded):
    assert len(recorded[1]) == STEPS
    assert np.linalg.norm(recorded[1][-1] - recorded[1][0]) > 0.1


def test_the_convexity_gap_is_minus_half_d_hessian_d(recorded):
    d = np.diff(recorded[1], axis=0)
    agree(values(recorded, "convexity_gap"), -np.einsum("ti,ij,tj->t", d, HESSIAN, d) / 2, recorded[2])


def test_the_smoothness_is_the_length_of_hessian_times_d_over_that_of_d(recorded):
    d = np.diff(recorded[1], axis=0)
    agree(values(recorded, "smoothness"), np.linalg.norm(d @ HESSIAN, axis=1) / np.linalg.norm(d, axis=1), recorded[2])


def test_the_update_correlation_is_e_hessian_d_and_blocks_share_it(recorded):
    points = recorded[1]
    d, g = np.diff(points, axis=0), (points[1:] - MINIMISER) @ HESSIAN
    agree(values(recorded, "update_correlation"), np.sum(g * d, axis=1), recorded[2])
    agree(values(recorded, "update_correlation", "a"), np.sum((g * d)[:, :2], axis=1), recorded[2])


def test_gap_equals_loss_change_minus_update_correlation(recorded):
    geometry_rows = recorded[0].geometry.filter(pl.col("pairing") == "previous", pl.col("block") == "model").collect()
    change = (geometry_rows["loss_x"] - geometry_rows["loss_y"]).to_numpy()
    agree(values(recorded, "convexity_gap"), change - values(recorded, "update_correlation"), 1e-14)


def test_convexity_holds_on_a_convex_quadratic(recorded):
    verdicts = measure(metrics()["convexity_gap"], recorded[0]).verdicts.filter(pairing="previous")
    assert set(verdicts["status"]) <= {"HOLDS", "INCONCLUSIVE"}
    assert verdicts.filter(claim="convex at every step")["violations"].item() == 0


@pytest.mark.parametrize("rate", [0.3, 0.7, 0.9])
def test_one_dimension_has_the_textbook_values(tmp_path, rate):
    """f = h x²/2, x₀ = 1: update correlation −ηh²(1 − ηh), positive beyond η = 1/h while the loss still falls."""
    h = 2.0
    model = torch.nn.Linear(1, 1, bias=False).double()
    torch.nn.init.ones_(model.weight)
    opt = torch.optim.SGD(model.parameters(), lr=rate)
    with Tracer(tmp_path / "run", model, opt, probes=["look_back"]) as tracer:
        for _ in range(2):
            opt.zero_grad()
            tracer.loss(lambda: h * model.weight.square().sum() / 2).backward()
            opt.step()
    tables = geometry(Trace(tmp_path / "run"))
    found = values((tables,), "update_correlation").item()
    change = tables.geometry.filter(pl.col("block") == "model").select(pl.col("loss_x") - pl.col("loss_y")).collect()
    assert found == pytest.approx(-rate * h * h * (1 - rate * h), rel=1e-12)
    assert change.item() == pytest.approx(-rate * h * h * (1 - rate * h / 2), rel=1e-12)
    assert (found > 0) == (rate > 1 / h)
    assert change.item() < 0
