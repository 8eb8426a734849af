"""Windows, parameter tensors and reference points on the page of a run, and in its files."""

import re

import numpy as np
import polars as pl
import pytest

from analysis.columns import Units, d_d, gx_d
from analysis.measure import measure
from analysis.metric import Claim, Metric
from analysis.pages.details import ROWS_MOST, Details, battery_shown, tensors_counted, tensors_judged, windows_shown
from analysis.pages.figures import figure
from analysis.pages.grouped import STATUSES
from analysis.pages.report import report
from analysis.pages.svg import to_svg
from analysis.registry import metrics
from analysis.soundness.checks import trace_checks
from analysis.tables import TableStore
from pipeline.results import details, write_details
from tests.problems import descend, positive_definite, quadratic
from tests.tables_by_hand import tables

CHOSEN = [metrics()[name] for name in ("trapezoid_gap", "directional_curvature", "reference_slope", "reference_cosine")]


@pytest.fixture(scope="module")
def given():
    run = descend(quadratic(positive_definite(6, 0.1, 2.0, 0), np.ones(6)), 0.05, 230)
    points = {"last": run.x[-1], "ema": 0.9 * run.x[-1], "initial": run.x[0]}
    epochs = {"epoch": 1.0}
    return tables(run, blocks=3, look_ahead=True, references=points, hyperparameters=epochs)


@pytest.fixture(scope="module")
def found(given):
    return {metric.name: measure(metric, given) for metric in CHOSEN}


def _page(given, found, beside):
    measured = {name: (each.metric, each.table, each.verdicts) for name, each in found.items()}
    return report(given.facts, measured, trace_checks(given), details=beside)


def _blocks(statuses, **columns):
    rows = len(statuses)
    made = {"claim": ["c"] * rows, "pairing": ["previous"] * rows, "block": [f"w{i}" for i in range(rows)]}
    numbers = {"estimate": [0.5] * rows, "lower": [0.25] * rows, "upper": [0.75] * rows, "p_value": [0.01] * rows}
    return pl.DataFrame({**made, **numbers, "adjusted": [0.02] * rows, "status": statuses, **columns})


def test_the_page_shows_tensors_windows_and_whether_a_reference_matters(given, found):
    beside = {name: Details(each.windows, each.blocks) for name, each in found.items()}
    page, bare = _page(given, found, beside), _page(given, found, {})
    for name in ("trapezoid_gap", "directional_curvature", "reference_slope"):
        section = page[page.index(f'id="metric-{name}"') :].partition('<details class="metric"')[0]
        assert "Parameter tensors judged by themselves" in section
        assert '<td class="id">w1</td>' in section
        assert "Windows: the run, its epochs, every hundred steps" in section
        assert "epoch 1" in section
    assert "Parameter tensors judged by themselves" not in bare
    battery = page[page.index('id="battery"') :].partition("</table>")[0]
    assert "initial (control)" in battery
    assert re.search(r"reference_cosine</a>: positive on average</td><td><b>robust</b>", battery)
    assert "the same at every good reference point, and not at the controls" in battery


def test_tensors_never_count_among_the_verdicts_of_the_run(given, found):
    name = "trapezoid_gap"
    many = Details(found[name].windows, _blocks(["FAILS"] * 30))
    one, other = (_page(given, found, {name: beside}) for beside in (many, Details()))
    tally = re.compile(r'<div class="tally">.*?</div>', re.DOTALL)
    assert tally.findall(one) == tally.findall(other)
    assert len(tally.findall(one)) == 1
    assert "FAILS at 30" in one
    assert "FAILS at 30" not in other


def test_long_tables_of_tensors_are_folded_and_cut_the_worst_first():
    statuses = ["HOLDS"] * 50 + ["INCONCLUSIVE"] * 3 + ["FAILS"] * 2
    adjusted = [0.03] * 50 + [None, 0.3, 0.2] + [0.04, 0.001]
    shown = tensors_judged(Details(None, _blocks(statuses, adjusted=adjusted, p_value=adjusted)))
    assert [row["block"] for row in shown.rows[:5]] == ["w54", "w53", "w52", "w51", "w50"]
    assert (len(shown.rows), shown.left_out) == (ROWS_MOST, 55 - ROWS_MOST)
    (sentence,) = tensors_counted(_blocks(statuses, p_value=adjusted).to_dicts())
    assert sentence == "c (fresh): 54 of 55 tensors tested, FAILS at 2, HOLDS at 50"


def test_windows_on_the_page_are_of_the_model_and_have_values_the_longest_first(found):
    metric = metrics()["directional_curvature"]
    shown = windows_shown(metric, Details(found[metric.name].windows))
    kinds = [row["window"] for row in shown.rows]
    assert kinds == sorted(kinds, key=["run", "epoch", "steps:100"].index)
    assert {row["block"] for row in shown.rows} == {"model"}
    assert "ratio" in shown.columns
    assert windows_shown(metric, Details()).rows == ()


def test_sums_over_sums_of_windows_are_drawn_for_a_ratio_only(given):
    ratio = Metric(name="a_ratio", units=Units(), value=gx_d / d_d, ratio=(gx_d, d_d), claim=Claim(at_most=0))
    plain = Metric(name="no_ratio", units=Units(), value=gx_d / d_d, claim=Claim(at_most=0))
    for metric, drawn in ((ratio, True), (plain, False)):
        each = measure(metric, given)
        with_windows, without = (to_svg(figure(metric, each.table, each.verdicts, w), {}) for w in (each.windows, None))
        assert (with_windows != without) == drawn


def test_the_battery_lists_what_every_point_answers_controls_last_and_says_what_that_means(found):
    names, rows = battery_shown([each.verdicts for each in found.values()])
    assert names == ["last", "ema", "initial"]
    assert {row["metric"] for row in rows} == {"reference_slope", "reference_cosine"}
    for row in rows:
        assert set(row["answers"].values()) <= set(STATUSES)
        assert row["status"] in ("robust", "not robust")
        assert ":" not in row["meaning"]


def test_details_are_read_back_as_written_and_leave_nothing_of_an_earlier_recording(given, found, tmp_path):
    store, name = TableStore(tmp_path, "run"), "trapezoid_gap"
    kept = write_details(store, name, found[name])
    assert {of: rows for of, (_, rows) in kept.items()} == {
        "windows": len(found[name].windows),
        "blocks": len(found[name].blocks),
    }
    read = details(store, [name])[name]
    assert read.windows.equals(found[name].windows)
    assert read.blocks.equals(found[name].blocks)
    empty = type(given)(given.geometry.filter(pl.col("step") < 0), given.path, given.steps, given.facts)
    assert write_details(store, name, measure(metrics()[name], empty)) == {}
    assert details(store, [name])[name].windows is None
    assert not list(tmp_path.rglob("*.parquet"))
