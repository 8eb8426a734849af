"""The engine under the proofs: what makes a line hold, fail, or say nothing; where a proof breaks."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from analysis.proving.proof import Constant, Line, Need, Proof
from analysis.proving.prove import LINE_SCHEMA, evaluate, text
from analysis.tables import Tables
from tests.problems import Run, descend, logistic
from tests.tables_by_hand import tables
from tracer.errors import UsageError

N = 240
x_x, lr = pl.col("x_x"), pl.col("lr")


@pytest.fixture(scope="module")
def given() -> Tables:
    run = descend(logistic(1), 0.3, N)
    return tables(run, references={"last": run.final}, pairings=("previous", "next"))


def line(**changes) -> Line:
    return Line(**{"name": "one", "left": lr, "right": lr, "relation": "=", "uses": "algebra", **changes})


def outcome(given, *lines, **changes):
    return evaluate(Proof(**{"name": "chain", "title": "A chain", "lines": lines, "bounds": (), **changes}), given)


def row(given, **changes):
    return outcome(given, line(**changes)).table.row(0, named=True)


def noise(seed=0, scale=1.0):
    return pl.lit(pl.Series(np.random.default_rng(seed).normal(scale=scale, size=N)))


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, "HOLDS"),
        ({"right": lr * (1 + 1e-9)}, "FAILS"),
        ({"right": lr * (1 + 1e-9), "tolerance": 1e-8 * lr}, "HOLDS"),
        ({"relation": "<=", "right": 2 * lr}, "HOLDS"),
        ({"relation": "<=", "right": lr}, "INCONCLUSIVE"),  # nothing that rounding could not undo
        ({"relation": "<=", "left": 2 * lr}, "FAILS"),
        ({"relation": "<=", "left": pl.when(pl.col("step") == 7).then(2 * lr).otherwise(0 * lr)}, "FAILS"),
    ],
)
def test_a_line_about_each_step_is_broken_by_one_step_beyond_rounding(given, changes, status):
    found = row(given, **changes)
    assert found["status"] == status
    assert (found["violations"] > 0) == (status == "FAILS")
    if "step" in str(changes.get("left", "")):
        assert (found["violations"], found["worst_step"]) == (1, 7)


@pytest.mark.parametrize(
    ("relation", "shift", "status"),
    [
        ("<=", 1.0, "FAILS"),
        ("<=", -1.0, "HOLDS"),
        ("<=", 0.0, "INCONCLUSIVE"),
        ("=", 0.0, "HOLDS"),
        ("=", 1.0, "FAILS"),
    ],
)
def test_a_line_in_expectation_is_decided_by_the_interval_of_its_mean(given, relation, shift, status):
    found = row(given, over="mean", relation=relation, left=noise() + shift, right=0 * lr, margin=pl.lit(0.4))
    assert found["status"] == status
    assert found["lower"] < shift < found["upper"]
    assert found["left"] == pytest.approx(shift, abs=0.3)


def test_an_equation_of_means_is_not_decided_by_an_interval_wider_than_its_margin(given):
    found = row(given, over="mean", left=noise(), right=0 * lr, margin=pl.lit(0.02))
    assert (found["status"], "not within" in found["reason"]) == ("INCONCLUSIVE", True)


def test_the_mean_is_weighted(given):
    half = pl.col("step") < N // 2
    changes = {"over": "mean", "relation": "<=", "left": pl.when(half).then(1.0).otherwise(-2.0), "right": 0 * lr}
    assert row(given, **changes)["left"] == pytest.approx(-0.5)
    assert row(given, **changes, weight=half.cast(pl.Float64))["status"] == "FAILS"


def test_a_few_steps_decide_a_mean_only_if_they_all_agree():
    short = tables(descend(logistic(1), 0.3, 20))
    changes = {"over": "mean", "relation": "<=", "right": 0 * lr}
    signs = pl.when(pl.col("step") % 2 == 0).then(1.0).otherwise(-1.5)
    assert row(short, **changes, left=signs)["status"] == "INCONCLUSIVE"
    assert row(short, **changes, left=-signs.abs())["status"] == "HOLDS"
    assert row(short, **changes, left=signs.abs())["status"] == "FAILS"


def test_sums_and_numbers_of_the_run_are_compared_as_they_are(given):
    total = N * 0.3
    found = row(given, over="sum", relation="<=", left=lr, right=2 * lr)
    assert (found["status"], found["left"], found["slack"]) == ("HOLDS", pytest.approx(total), pytest.approx(total))
    assert row(given, over="sum", relation="<=", left=2 * lr)["status"] == "FAILS"
    assert row(given, over="run", left=lr.sum(), right=pl.lit(total), tolerance=pl.lit(1e-9))["status"] == "HOLDS"
    assert row(given, over="run", left=lr.sum(), right=pl.lit(total + 1))["status"] == "FAILS"


def test_the_noise_of_minibatches_leaves_a_close_call_open(given):
    def at(left):
        return row(given, over="run", relation="<=", left=pl.lit(left), right=pl.lit(1.0), noise=pl.lit(0.1))["status"]

    assert [at(0.5), at(0.9), at(1.1), at(1.5)] == ["HOLDS", "INCONCLUSIVE", "INCONCLUSIVE", "FAILS"]


def test_what_is_missing_is_not_applicable_and_says_why_and_breaks_nothing(given):
    absent = line(name="absent", left=pl.col("reference.loss_y"))
    found = outcome(given, line(), absent, line(name="false", right=2 * lr))
    assert found.table["status"].to_list() == ["HOLDS", "NOT APPLICABLE", "FAILS"]
    assert "not evaluated at the reference point" in found.table["reason"][1]
    assert found.table["breaks"].to_list() == [False, False, True]
    assert (found.finding.status, found.finding.breaks) == ("FAILS", "false")
    finding = outcome(given, line(), absent).finding
    assert (finding.status, finding.breaks) == ("INCONCLUSIVE", None)
    assert "not tested: absent" in finding.reason


def test_the_first_line_that_fails_breaks_the_proof(given):
    wrong = [line(name=name, right=2 * lr, uses=name) for name in ("convexity", "smoothness")]
    found = outcome(given, line(), *wrong)
    assert found.finding.breaks == "convexity"
    assert "line 2 (convexity; uses convexity)" in found.finding.reason
    assert found.table["breaks"].to_list() == [False, True, False]
    assert outcome(given, line()).finding.status == "HOLDS"


def test_undefined_steps_let_no_line_hold(given):
    hole = pl.when(pl.col("step") == 9).then(np.inf).otherwise(lr)
    found = row(given, left=hole, right=hole)
    assert (found["status"], found["undefined"], found["steps"]) == ("INCONCLUSIVE", 1, N - 1)


def test_constants_of_the_first_half_are_tested_on_the_second(given):
    most = Constant("most", pl.col("step").max(), "the largest step", first_half=True)
    chain = line(left=pl.col("step").cast(pl.Float64), right=pl.col("most"), relation="<=")
    assert outcome(given, replace(chain, second_half=True), constants=(most,)).table["violations"][0] == N // 2
    assert outcome(given, chain, constants=(replace(most, first_half=False),)).finding.status == "HOLDS"


@pytest.mark.parametrize(
    "need",
    [
        Need("Adam", optimizers=("Adam",)),
        Need("another reference", reference="ema"),
        Need("a rate that changes", (lr != lr.first()).any()),
        Need("momentum", (pl.col("momentum") > 0).fill_null(False).all()),
    ],
)
def test_a_proof_that_does_not_speak_of_this_run_says_why(given, need):
    found = outcome(given, line(), needs=(need,), bounds=(line(name="bound", over="run", left=pl.lit(1.0)),))
    assert found.finding.status == "NOT APPLICABLE"
    assert f"stated for {need.says}" in found.finding.reason
    assert set(found.table["status"]) == {"NOT APPLICABLE"}
    assert outcome(given, line(needs=(need,)), line(name="two")).table["status"].to_list() == [
        "NOT APPLICABLE",
        "HOLDS",
    ]


def test_the_bound_stands_beside_what_was_observed_and_is_no_line(given):
    bound = line(name="bound", over="run", relation="<=", left=pl.lit(1.0), right=pl.lit(3.0))
    found = outcome(given, line(), bounds=(bound,))
    assert (found.finding.status, found.finding.observed, found.finding.bound) == ("HOLDS", 1.0, 3.0)
    missing = replace(bound, left=pl.col("reference.loss_y").sum())
    found = outcome(given, line(), bounds=(missing,))
    assert np.isnan(found.finding.observed)
    assert found.finding.bound == 3.0
    assert found.table["left"].to_list()[1] is None


def test_only_the_longest_stretch_without_a_gap_is_looked_at():
    steps = np.r_[0:20, 30:90, 95:100]
    found = outcome(tables(descend(logistic(1), 0.3, 85), steps=steps), line())
    assert found.table["steps"][0] == 59  # the point after step 89 is not there
    assert found.table["window"][0] == "steps 30 to 88, the longest of 3 stretches without a gap"


def test_a_run_without_steps_is_not_applicable():
    empty = np.empty((0, 3))
    none = np.empty(0)
    found = outcome(tables(Run(empty, empty, empty, none, none, none)), line())
    assert (found.finding.status, found.finding.reason) == ("NOT APPLICABLE", "the run has no steps")


def test_the_table_has_its_schema_and_reads_as_text(given):
    found = outcome(given, line(), line(name="two", right=2 * lr))
    assert found.table.schema == LINE_SCHEMA
    proof = Proof(name="chain", title="A chain", lines=(line(),), bounds=())
    shown = text(proof, found)
    assert "two" in shown
    assert "FAILS ← breaks the proof" in shown
    assert shown.splitlines()[-1].startswith("FAILS: line 2")


def test_a_changed_formula_changes_the_fingerprint():
    one = Proof(name="chain", title="A chain", lines=(line(),), bounds=())
    same = Proof(name="chain", title="A chain", lines=(line(),), bounds=())
    other = Proof(name="chain", title="A chain", lines=(line(tolerance=lr),), bounds=())
    assert one.fingerprint == same.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "not a name"},
        {"lines": ()},
        {"lines": (line(), line())},
        {"lines": (line(over="mean"),)},  # an equation of means without a margin
    ],
)
def test_a_proof_that_makes_no_sense_is_refused(changes):
    with pytest.raises(UsageError):
        Proof(**{"name": "chain", "title": "A chain", "lines": (line(),), "bounds": (), **changes})
