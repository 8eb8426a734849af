"""A convex problem, trained for real in float32 until rounding is all that is left, must never be called non-convex."""

import pytest

from analysis.geometry import geometry
from analysis.measure import measure
from analysis.registry import metrics
from tracer.store import Trace
from tracer.workloads import train


@pytest.mark.parametrize("optimizer", ["sgdm", "adamw"])
def test_logistic_regression_is_never_found_to_be_not_convex(tmp_path, optimizer):
    """Near the minimum the per-example gradients cancel, and their sum's rounding is far above that of its size."""
    train("logistic", tmp_path / "run", optimizer=optimizer, steps=3200)
    verdicts = measure(metrics()["convexity_gap"], geometry(Trace(tmp_path / "run"))).verdicts
    every_step, average = (
        verdicts.filter(claim=claim).row(0, named=True) for claim in ("convex at every step", "convex on average")
    )
    assert every_step["status"] == "HOLDS", every_step["reason"]
    assert every_step["violations"] == 0
    assert average["status"] != "FAILS"
