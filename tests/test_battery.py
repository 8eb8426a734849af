"""The battery of reference points, from verdicts made by hand and from a run."""

import numpy as np
import polars as pl
import pytest

from analysis.columns import Units, gx_d
from analysis.judging.battery import NOT_APPLICABLE, NOT_ROBUST, ROBUST, battery
from analysis.measure import measure
from analysis.metric import Claim, Metric
from analysis.rounding import slope_rounding
from tests.problems import descend, positive_definite, quadratic
from tests.tables_by_hand import tables

H, F, U, N = "HOLDS", "FAILS", "INCONCLUSIVE", "NOT APPLICABLE"
GOOD = {"last": H, "tail_mean": H, "ema": H, "best_loss": H, "run:other": H, "point:mine": H}
BAD = {"initial": F, "random": U}


def _of(statuses):
    rows = [
        {"run_id": "r", "metric": "m", "claim": "c", "pairing": f"reference:{name}", "status": status}
        for name, status in statuses.items()
    ]
    rows.append({"run_id": "r", "metric": "m", "claim": "c", "pairing": "previous", "status": F})
    return battery(pl.DataFrame(rows)).row(0, named=True)


@pytest.mark.parametrize(
    ("statuses", "status", "words"),
    [
        ({**GOOD, **BAD}, ROBUST, "HOLDS at last, tail_mean, ema, best_loss, run:other, point:mine; controls: FAILS"),
        ({**GOOD, **BAD, "epoch_last": N}, ROBUST, "not applicable at epoch_last"),
        ({**GOOD, **BAD, "ema": F}, NOT_ROBUST, "FAILS at ema"),
        ({**GOOD, **BAD, "ema": U}, NOT_ROBUST, "INCONCLUSIVE at ema"),
        ({**GOOD, "initial": H, "random": F}, NOT_ROBUST, "(initial) gives the same answer"),
        (GOOD, NOT_ROBUST, "no control applies"),
        ({"last": H, **BAD}, NOT_ROBUST, "only one good reference point"),
        (dict.fromkeys(GOOD, U) | BAD, NOT_ROBUST, "gives an answer"),
        (dict.fromkeys(GOOD, N) | BAD, NOT_APPLICABLE, "no good reference point"),
        (dict.fromkeys(GOOD, F) | {"initial": H, "random": H}, ROBUST, "FAILS at last"),
    ],
)
def test_robust_is_the_same_at_all_good_points_and_another_at_the_controls(statuses, status, words):
    found = _of(statuses)
    assert (found["status"], found["pairing"]) == (status, "reference:*")
    assert words in found["reason"]


def test_slopes_towards_the_minimum_are_robust_on_a_quadratic_and_have_a_row_per_claim():
    claims = (Claim(at_least=0, name="towards it", tolerance=slope_rounding), Claim(at_most=1e9, name="anything"))
    slope = Metric(name="s", units=Units(loss=1), value=gx_d, pairings=("reference",), claims=claims)
    run = descend(quadratic(positive_definite(4, 0.5, 2.0, 0), np.ones(4)), 0.05, 60)
    points = {"last": 0 * run.x[-1], "ema": 1e-9 * run.x[0], "initial": run.x[0]}
    found = battery(measure(slope, tables(run, references=points)).verdicts)
    assert found.select("claim", "status").rows() == [("towards it", ROBUST), ("anything", NOT_ROBUST)]


def test_a_metric_without_references_has_no_row():
    run = descend(quadratic(positive_definite(4, 0.5, 2.0, 0), np.ones(4)), 0.05, 40)
    metric = Metric(name="s", units=Units(loss=1), value=gx_d, claim=Claim(at_most=0))
    assert battery(measure(metric, tables(run)).verdicts).is_empty()
