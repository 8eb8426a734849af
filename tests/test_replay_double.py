"""Steps evaluated again in double precision, where recorded losses are too coarse for their gap."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from analysis.measure import measure
from analysis.registry import metrics
from tests.replayed_tables import replayed_run
from tracer.errors import UsageError
from tracer.replay.replay import Asked
from tracer.store import Trace

METRICS = metrics()
STEPS = 120


def verdict(metric, claim, tables):
    rows = measure(METRICS[metric], tables).verdicts
    return rows.filter((rows["claim"] == claim) & (rows["pairing"] == "previous")).row(0, named=True)


def gaps(tables):
    table = measure(METRICS["convexity_gap_float64"], tables).table
    return table.filter(table["pairing"].cast(str) == "previous")


def test_a_gap_that_single_precision_hides_is_exact_and_decided(tmp_path):
    tables = replayed_run(tmp_path, "coarse", STEPS, 1.0, Asked(float64=1), probes=["look_back"])
    x = np.concatenate([chunk.x for chunk in Trace(tmp_path / "runs" / "run").chunks()]).astype(float)
    d = np.diff(x[:STEPS], axis=0)
    exact = -1e-3 * (d**2).sum(axis=1) / 2
    found = gaps(tables)
    assert_allclose(found["value"].to_numpy(), exact, atol=4e-14)  # 100 in double precision
    recorded = found["recorded"].to_numpy()
    assert np.abs(recorded - exact).max() > np.abs(exact).max(), "the recorded losses do not resolve it"
    assert verdict("convexity_gap_float64", "convex at every step", tables)["status"] == "HOLDS"
    assert verdict("convexity_gap_float64", "convex on average", tables)["status"] == "HOLDS"


def test_a_hill_that_single_precision_hides_is_not_convex(tmp_path):
    tables = replayed_run(tmp_path, "hill", STEPS, 1.0, Asked(float64=1), probes=["look_back"])
    for claim in ("convex at every step", "convex on average"):
        assert verdict("convexity_gap_float64", claim, tables)["status"] == "FAILS"


def test_a_loss_that_insists_on_single_precision_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"gives a loss in torch.float32 .* Leave conversions"):
        replayed_run(tmp_path, "converts", 3, 1.0, Asked(float64=1))


def test_dropout_and_batch_norm_are_the_recorded_ones(tmp_path):
    tables = replayed_run(tmp_path, "noisy", 4, 0.1, Asked(float64=1), probes=["look_back"])
    assert_allclose(gaps(tables)["value"], gaps(tables)["recorded"], atol=1e-4)


def test_another_loss_in_double_precision_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"more than rounding\. Does it draw other random numbers"):
        replayed_run(tmp_path, "fickle", 3, 1.0, Asked(float64=1))


def test_other_questions_are_not_touched(tmp_path):
    asked = Asked(references=("last",), float64=2)
    alone = replayed_run(tmp_path / "alone", "quadratic", 6, 0.1, Asked(references=("last",)))
    both = replayed_run(tmp_path / "both", "quadratic", 6, 0.1, asked)
    assert alone.geometry.collect().equals(both.geometry.collect())
