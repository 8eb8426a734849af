"""What noise alone does to SGD's steps, in each of torch's three ways: heavy ball, Nesterov, dampening."""

import numpy as np
import polars as pl
import pytest

from analysis.measure import measure
from tests import recorded_walks as walks
from tests.walks import METRICS

SIZE, CURVATURE, NOISE, RATE, MOMENTUM, STEPS = 20, 1.0, 1.0, 0.01, 0.9, 2000
WAYS = {"heavy ball": (False, 0.0), "nesterov": (True, 0.0), "dampened": (False, 0.9)}


def walked(nesterov: bool, dampening: float) -> walks.Walk:
    problem, random = walks.isotropic(CURVATURE, SIZE, NOISE), np.random.default_rng(0)
    x, z, m = [problem.start.copy()], [], []
    for t in range(STEPS):
        z.append(problem.draw(random))
        g = problem.grad(x[-1], z[-1])
        m.append(g if t == 0 else MOMENTUM * m[-1] + (1 - dampening) * g)
        x.append(x[-1] - RATE * (g + MOMENTUM * m[-1] if nesterov else m[-1]))
    settings = {"lr": RATE, "momentum": MOMENTUM, "weight_decay": 0.0, "dampening": dampening, "clip_factor": 1.0}
    return walks.Walk(problem, np.array(x), z, np.array(m), settings, walks.halves_of(CURVATURE))


@pytest.fixture(scope="module", params=WAYS)
def ran(request):
    nesterov, dampening = WAYS[request.param]
    walk = walked(nesterov, dampening)
    return walk, walks.tables_of(walk, optimizer_flags=("nesterov",) if nesterov else ())


def verdicts(metric, tables, pairing):
    return measure(METRICS[metric], tables).verdicts.filter(pl.col("pairing").cast(pl.String) == pairing)


def printed(row, rule):
    (amount,) = [part.split()[1] for part in row["biases"].split("; ") if part.startswith(rule)]
    return float(amount)


def test_optimism_is_what_the_step_puts_on_its_gradient_times_the_noise(ran):
    _, tables = ran
    (row,) = verdicts("optimism", tables, "previous").filter(claim="equals lr tr Σ").rows(named=True)
    assert row["status"] == "HOLDS", row["reason"]


def test_the_printed_bias_of_an_in_sample_step_is_the_measured_one(ran):
    walk, tables = ran
    steps = np.diff(walk.x, axis=0)
    own = np.mean([walk.problem.grad(x, z) @ d for x, z, d in zip(walk.x[:-1], walk.z, steps, strict=True)])
    fresh = np.mean(CURVATURE * (walk.x[:-1] * steps).sum(axis=1))
    (row,) = verdicts("descent_term", tables, "next").rows(named=True)
    assert printed(row, "R2") == pytest.approx(own - fresh, rel=0.05)


def test_the_printed_null_value_of_the_cosine_is_that_of_steps_made_of_noise(ran):
    walk, tables = ran
    nesterov = "nesterov" in tables.facts.optimizer_flags
    random, m = np.random.default_rng(1), np.zeros(SIZE)
    steps = []
    for _ in range(STEPS):
        g = random.normal(size=SIZE)
        m = MOMENTUM * m + (1 - walk.records["dampening"]) * g
        steps.append(g + MOMENTUM * m if nesterov else m)
    d = np.array(steps[100:])
    cosines = (d[1:] * d[:-1]).sum(axis=1) / np.sqrt((d[1:] ** 2).sum(axis=1) * (d[:-1] ** 2).sum(axis=1))
    (row,) = verdicts("cos_step", tables, "previous").rows(named=True)
    assert printed(row, "momentum") == pytest.approx(cosines.mean(), abs=0.02)
