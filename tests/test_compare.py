"""Several runs on one page."""

import re

import pytest

from analysis.measure import measure_all
from analysis.pages.compare import Compared, compare, rates
from analysis.pages.comparison_plates import smoothness_against_rate
from analysis.registry import metrics
from tests.problems import descend, logistic, saddle
from tests.tables_by_hand import tables

CHOSEN = ("convexity_gap", "smoothness")
EVIL = "<script>alert('lemmata')</script>"


def compared(run_id, run, lr):
    given = tables(run, run_id=run_id)
    found = measure_all([metrics()[name] for name in CHOSEN], given)
    fresh = found["smoothness"].table.filter(found["smoothness"].table["pairing"].cast(str) == "previous")
    verdicts = found["convexity_gap"].verdicts.vstack(found["smoothness"].verdicts)
    findings = [{"proof": "descent_lemma", "status": "FAILS", "reason": EVIL}]
    return Compared(given.facts, verdicts, findings, [lr] * 60, fresh["value"].to_list(), {"note": EVIL})


@pytest.fixture(scope="module")
def runs():
    return [
        compared("bowl", descend(logistic(1), 0.3, 60), 0.3),
        compared("pass", descend(saddle(0.01), 0.05, 300), 0.05),
    ]


def test_a_claim_that_only_one_run_meets_comes_first(runs):
    page = compare(runs, {name: metrics()[name].family for name in CHOSEN})
    first = re.search(r"<tbody>\s*<tr><td><b>convex at every step</b>.*?</tr>", page, flags=re.DOTALL)
    assert first is not None
    assert re.findall(r'class="status (\w+)"', first[0]) == ["holds", "fails"]


def test_the_page_fetches_nothing_and_escapes(runs):
    page = compare(runs, {name: metrics()[name].family for name in CHOSEN})
    assert EVIL not in page
    assert page.count("<script") == 1
    assert not re.findall(r'(?:href|src)="(?!#)', page)


def test_smoothness_stands_at_its_learning_rate(runs):
    axes = smoothness_against_rate(rates(runs)).axes[0]
    at = sorted(x for line in axes.lines if line.get_marker() == "o" for x in line.get_xdata())
    assert at == [0.05, 0.3]


def test_without_numbers_the_figure_says_so():
    assert "no run has both" in smoothness_against_rate(rates([])).axes[0].texts[0].get_text()
