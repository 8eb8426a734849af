"""The check that updates are the optimizer's own: what breaks it, what explains it, and what it says."""

import numpy as np
import pytest
import torch

from analysis.geometry import geometry
from analysis.soundness.checks import trace_checks
from analysis.soundness.own_updates import own_updates
from tests.dynamics_runs import write
from tests.problems import descend, least_squares, quadratic
from tests.slopes import OPTIMIZERS, STEPS, Slopes, adamw, record, sgd
from tracer.store import Trace


def check(trace):
    return own_updates(geometry(trace, references=()))


@pytest.mark.parametrize("stream", ["x", "g"])
def test_one_wrong_bit_is_broken_data(tmp_path, stream):
    run_ = descend(least_squares(1), 0.05, 40)
    getattr(run_, stream)[20, 1] *= 1 + 2**-24  # the last bit of a float32 number
    write(tmp_path / "run", run_)
    found = check(Trace(tmp_path / "run"))
    assert (found.passed, found.severity) == (False, "error")
    assert found.numbers["step"] in (19, 20)
    assert "recorded gradients, settings or points" in found.description


def clamp(model, t, before):
    model.a.clamp_(-0.5, 0.5)


def test_points_changed_besides_the_update_are_an_error_unless_it_was_declared(tmp_path):
    found = check(record(tmp_path / "silent", sgd(momentum=0.9), after=clamp))
    assert (found.passed, found.severity) == (False, "error")
    assert "changed_updates='record'" in found.description
    found = check(record(tmp_path / "said", sgd(momentum=0.9), after=clamp, changed_updates="record"))
    assert (found.passed, found.severity) == (False, "warn")
    assert "not the optimizer's own formula" in found.description


def test_a_trace_of_an_earlier_version_promised_nothing_and_warns(tmp_path):
    run_ = descend(least_squares(1), 0.05, 40)
    run_.x[20] += 1e-3
    write(tmp_path / "run", run_, promised=False)
    found = check(Trace(tmp_path / "run"))
    assert (found.passed, found.severity) == (False, "warn")


def by_the_factor(scale):
    def after(model, t, before):
        for p, old in zip(model.parameters(), before, strict=True):
            p.copy_(old + scale[t] * (p - old))

    return after


@pytest.mark.parametrize("name", ["sgd", "heavy ball", "adamw"])
def test_a_random_factor_that_is_recorded_explains_the_step(tmp_path, name):
    scale = np.random.default_rng(0).exponential(size=STEPS).tolist()
    make = OPTIMIZERS[name][0]
    assert check(record(tmp_path / "after", make, after=by_the_factor(scale), scale=scale)).passed
    found = check(record(tmp_path / "other", make, after=by_the_factor(scale[::-1]), scale=scale))
    assert (found.passed, found.severity) == (False, "warn")
    assert "random scale" in found.description
    in_the_rate = record(tmp_path / "rate", make, rates=0.1 * np.array(scale), scale=scale)
    assert check(in_the_rate).passed


def test_a_branch_begins_with_moments_of_another_run(tmp_path):
    trace = record(tmp_path / "run", sgd(momentum=0.9), steps=5, branch_of=("other", 7))
    found = check(trace)
    assert (found.passed, found.severity) == (False, "warn")
    assert "not tested" in found.description


def test_steps_as_small_as_rounding_are_not_tested(tmp_path):
    found = check(record(tmp_path / "run", adamw(), model=Slopes(torch.bfloat16)))
    assert (found.passed, found.severity) == (False, "warn")
    assert "rounding is as large as the steps" in found.description


@pytest.mark.parametrize("given", [torch.optim.RMSprop, torch.optim.Adafactor])
def test_an_optimizer_that_is_not_known_is_not_tested_and_says_so(tmp_path, given):
    trace = record(tmp_path / "run", lambda p: given(p, lr=0.01), steps=5, model=Slopes(torch.float32))
    found = check(trace)
    assert (found.passed, found.severity) == (False, "warn")
    assert "is not known here" in found.description


def test_a_run_that_diverges_is_undefined_not_broken(tmp_path):
    with np.errstate(all="ignore"):
        run_ = descend(quadratic(np.diag([100.0, 1.0]), np.ones(2)), 0.5, 250)
    write(tmp_path / "run", run_, settings={"lr": 0.5})
    assert {(c.name, c.severity) for c in trace_checks(geometry(Trace(tmp_path / "run"))) if not c.passed} == {
        ("finite", "warn")
    }
