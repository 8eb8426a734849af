"""How far rounding may take a loss, and what a replay's spread does to that."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from numpy.testing import assert_allclose

from analysis.measure import measure
from analysis.proving.proof_rows import proof_rows
from analysis.registry import metrics
from analysis.rounding import GRADIENT_ERRORS, LOSS_ERRORS, ROUNDOFF, loss_difference_rounding, loss_errors
from tests.replayed_tables import replayed_run, written
from tests.test_metrics_columns import every_column, every_metric, table_of
from tracer.errors import LemmataError
from tracer.replay.replay import Asked, replay

UNIT = ROUNDOFF["float64"]


def evaluated(formula: pl.Expr, **columns: float | None) -> float:
    frame = pl.DataFrame({name: [value] for name, value in columns.items()}, schema=dict.fromkeys(columns, pl.Float64))
    return frame.select(formula).item()


@pytest.mark.parametrize(("sigma", "of_losses"), [
    (None, LOSS_ERRORS * 1e-8 * 3),
    (0.0, LOSS_ERRORS * 1e-8 * 3),
    (1e-9, LOSS_ERRORS * 1e-8 * 3),
    (1e-2, 3 * 2**0.5 * 1e-2),
])  # fmt: skip
def test_the_spread_of_a_repeated_evaluation_counts_where_it_is_more_than_rounding(sigma, of_losses):
    row = {"loss_x": -3.0, "loss_y": 2.0, "gx_gx": 4.0, "d_d": 9.0, "u_loss": 1e-8, "u_vector": 1e-7, "sigma_f": sigma}
    assert evaluated(loss_difference_rounding, **row) == pytest.approx(of_losses + GRADIENT_ERRORS * 1e-7 * 2 * 3)


def test_the_spread_of_a_sum_of_losses_follows_the_squares_of_its_factors():
    assert evaluated(loss_errors(pl.lit(0.0), squares=6), u_loss=1e-8, sigma_f=0.1) == pytest.approx(3 * 6**0.5 * 0.1)


@every_metric
def test_nothing_replayed_is_as_good_as_an_exact_replay(metric):
    columns = every_column(metric)
    exact, none = (table_of(metric, {**columns, "sigma_f": [of] * 40}) for of in (0.0, None))
    assert exact.equals(none)


@pytest.mark.parametrize("name", sorted(n for n, m in metrics().items() if "loss_x" in m.all_columns))
def test_a_larger_spread_never_makes_a_verdict_bolder(name):
    metric = metrics()[name]
    columns = every_column(metric)
    tolerances = [table_of(metric, {**columns, "sigma_f": np.full(40, of)})["tolerance"] for of in (0.0, 1.0, 2.0)]
    for small, large in pairwise(tolerances):
        assert (large.fill_nan(None) >= small.fill_nan(None)).all()


@pytest.fixture(scope="module")
def jittery(tmp_path_factory):
    """Tables of a convex run whose losses do not repeat themselves: as recorded, and replayed."""
    folder = tmp_path_factory.mktemp("jittery")
    recorded = replayed_run(folder, "jittery", 250, 0.03, asked=None, probes=["look_back"])
    replay(folder / "runs" / "run", Asked(references=("last",)), allow=["tests.replay_problems"],
           into=folder / "tables" / "run")  # fmt: skip
    return recorded, written(folder / "runs" / "run", folder / "tables").tables()


def test_a_loss_that_does_not_repeat_itself_is_not_called_non_convex_once_it_was_replayed(jittery):
    gap = metrics()["convexity_gap"]
    found = [
        measure(gap, tables).verdicts.filter(pairing="previous", claim="convex at every step") for tables in jittery
    ]
    before, after = ((each["status"].item(), each["reason"].item()) for each in found)
    assert before[0] == "FAILS"
    assert after[0] != "FAILS", after[1]
    sigma = jittery[1].replayed.noise
    assert sigma == pytest.approx(3e-5 * 2**0.5, rel=0.3), "both evaluations are off"
    assert_allclose(measure(gap, jittery[1]).frames["previous"]["tolerance"], 3 * 2**0.5 * sigma, rtol=1e-6)


def test_proofs_read_the_spread_too(jittery):
    sigmas = [proof_rows(tables, "last").frame["sigma_f"].unique().to_list() for tables in jittery]
    assert sigmas == [[None], [jittery[1].replayed.noise]]


def test_the_replay_of_another_loss_says_nothing_about_the_recorded_ones(tmp_path):
    recorded = replayed_run(tmp_path, "quadratic", 20, 0.1, asked=None, probes=["look_back"])
    path, into = tmp_path / "runs" / "run", tmp_path / "tables" / "run"
    how = {"workload": "tests.replay_problems:another", "allow": ["tests.replay_problems"], "into": into}
    with pytest.raises(LemmataError, match="not the loss that was recorded"):
        replay(path, Asked(references=("initial",)), **how)
    refused = written(path, tmp_path / "tables").tables()
    assert refused.replayed.noise > 1e-3
    gap = metrics()["convexity_gap"]
    assert measure(gap, refused).table.equals(measure(gap, recorded).table)
    assert proof_rows(refused, "initial").frame["sigma_f"].null_count() == 20

    replay(path, Asked(references=("initial",)), accept_disagreement=True, **how)
    accepted = written(path, tmp_path / "tables").tables()
    assert measure(gap, accepted).table.equals(measure(gap, recorded).table)
    beside = measure(metrics()["quadratic_growth"], accepted).frames["reference:initial"].filter(pl.col("d_d") > 0)
    assert len(beside) == 19, "all but the initial point itself"
    assert_allclose(beside["tolerance"] * beside["d_d"], 2 * 3 * 2**0.5 * accepted.replayed.noise)
