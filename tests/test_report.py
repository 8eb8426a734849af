"""Figures and the page of one run: self-contained, escaped, and showing what was measured."""

import re
from dataclasses import asdict, replace
from html.parser import HTMLParser
from threading import Thread
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest

from analysis.columns import Units, gx_d
from analysis.measure import measure
from analysis.metric import Claim, Metric
from analysis.pages.figures import figure
from analysis.pages.panel import key_of
from analysis.pages.report import report
from analysis.pages.report_section import summary
from analysis.pages.svg import drawing, standalone, to_png, to_svg
from analysis.proofs import proofs
from analysis.proving.prove import evaluate_all
from analysis.registry import metrics
from analysis.soundness.checks import CheckResult, trace_checks
from analysis.vectors.references import REFERENCES
from tests.problems import descend, logistic, quadratic, saddle
from tests.tables_by_hand import geometry_tables, tables

EVIL = "<script>alert('lemmata')</script>"
EVERY = list(metrics().values())
SOME = [metrics()[name] for name in ("convexity_gap", "aiming", "convexity_ratio", "reference_slope", "reference_gap",
        "smoothness", "update_correlation", "loss_change", "random_scaling", "jerk", "snr")]  # fmt: skip


def measured(given, chosen=SOME):
    return {m.name: (m, r.table, r.verdicts) for m in chosen for r in [measure(m, given)]}


def drawn(metric, given):
    result = measure(metric, given)
    return figure(metric, result.table, result.verdicts)


class Page(HTMLParser):
    """Tags in order, ids, links; and that every element which must be closed is."""

    VOID = frozenset({"meta", "link", "br", "hr", "img", "input", "path", "use", "rect"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.links, self.open, self.attributes = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name in ("href", "src", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page():
    given = tables(descend(logistic(1), 0.3, 400), blocks=2, run_id="a-run")
    outcomes = evaluate_all(proofs().values(), given)
    held = {name: (proofs()[name], asdict(each.finding), each.table) for name, each in outcomes.items()}
    config, broken = {"note": EVIL}, {"/x.py": f"Error: {EVIL}"}
    steps = given.steps.collect()
    return report(given.facts, measured(given), trace_checks(given), config, broken, steps=steps, proofs=held)


def test_the_page_fetches_nothing_and_is_well_formed(page):
    parsed = Page(page)
    assert parsed.open == []
    assert all(link.startswith("#") for link in parsed.links)
    assert not re.findall(r"@import|url\((?!#)", page)
    assert "link" not in parsed.tags
    assert parsed.tags.count("script") == 1


def test_ids_on_the_page_differ_and_every_link_leads_to_one(page):
    parsed = Page(page)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {link[1:] for link in parsed.links} <= set(parsed.ids)


def test_text_of_users_is_escaped_everywhere():
    title = Metric(name="mine", units=Units(loss=1), value=gx_d, title=EVIL, formula=EVIL, paper=EVIL, caveats=(EVIL,))
    claim = Claim(at_most=0, name=EVIL, says=EVIL, caveat=EVIL)
    mine = Metric(name="other", units=Units(loss=1), value=gx_d, title=EVIL, claim=claim)
    given = tables(descend(logistic(1), 0.3, 40), run_id=EVIL)
    checks = [CheckResult(EVIL, False, "error", EVIL, {EVIL: EVIL})]
    text = report(given.facts, measured(given, [title, mine]), checks, {EVIL: EVIL}, {EVIL: EVIL})
    assert EVIL not in text
    assert text.count("<script") == 1
    assert text.count("&lt;script&gt;") > 15


def test_verdicts_come_first_with_reason_caveat_and_numbers(page):
    given = tables(descend(logistic(1), 0.3, 400), blocks=2)
    assert page.index('id="verdicts"') < page.index('id="metric-convexity_gap"') < page.index('id="checks"')
    plain = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    for _, _, verdicts in measured(given).values():
        for row in verdicts.iter_rows(named=True):
            if row["rule"] == "none":
                continue  # it claims nothing
            for words in (row["reason"], row["says"][:60], row["caveat"][:60], row["fingerprint"]):
                assert " ".join(words.split()).replace("'", "&#39;").replace('"', "&#34;") in plain


def test_damage_is_announced_above_every_verdict(page):
    given = tables(descend(logistic(1), 0.3, 40))
    bad = [replace(c, passed=False) if c.name == "slopes of a pair" else c for c in trace_checks(given)]
    text = report(given.facts, measured(given, SOME[:1]), bad)
    assert "This trace is damaged" not in page
    assert text.index("This trace is damaged") < text.index('id="verdicts"')


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_the_page_of_a_run_too_short_for_anything_still_stands(steps):
    given = tables(descend(logistic(1), 0.3, steps))
    found = measured(given)
    text = report(given.facts, found, trace_checks(given), steps=given.steps.collect())
    assert "NOT APPLICABLE" in text or "INCONCLUSIVE" in text
    assert not [row for _, _, verdicts in found.values() for row in verdicts.to_dicts() if row["status"] == "HOLDS"]


def test_the_same_run_gives_the_same_page():
    given = tables(descend(logistic(1), 0.3, 40))
    one, other = (report(given.facts, measured(given, SOME[:2]), trace_checks(given)) for _ in range(2))
    assert one == other


def test_summary_counts_missing_undefined_and_zero_apart():
    values = [1.0, None, float("nan"), 0.0, 5.0]
    row = summary(measure(metrics()["update_correlation"], geometry_tables({"gx_d": values})).table).row(0, named=True)
    assert (row["defined"], row["undefined"], row["missing"]) == (3, 1, 1)
    assert (row["mean"], row["median"], row["smallest"], row["largest"], row["last"]) == (2, 1, 0, 5, 5)


def test_violations_are_marked_and_counted_in_the_figure():
    fig = drawn(metrics()["convexity_gap"], tables(descend(saddle(0.01), 0.05, 300)))
    labels = fig.axes[0].get_legend_handles_labels()[1]
    assert "beyond the bound (221)" in labels
    assert "claimed: ≤ 0" in labels


def test_the_figure_of_smoothness_shows_2_over_lr_only_where_it_means_something():
    run = descend(logistic(1), 0.3, 60)
    for optimizer, shown in (("SGD", True), ("Adam", False)):
        labels = drawn(metrics()["smoothness"], tables(run, optimizer_class=optimizer)).axes[0]
        assert ("2 / lr" in labels.get_legend_handles_labels()[1]) is shown


def test_the_figure_of_unpaired_values_says_so():
    fig = drawn(metrics()["smoothness"], tables(descend(logistic(1), 0.3, 60), look_back=False))
    assert "UNPAIRED" in fig.axes[0].get_title(loc="left")


def test_cumulative_update_correlation_stands_beside_the_loss_change():
    fig = drawn(metrics()["update_correlation"], tables(descend(logistic(1), 0.3, 60)))
    assert len(fig.axes[1].get_legend_handles_labels()[1]) == 2


def test_a_figure_of_100000_steps_is_small_and_keeps_the_extremes():
    values = np.random.default_rng(0).normal(size=100_000)
    values[54_321] = 40.0
    fig = drawn(metrics()["update_correlation"], geometry_tables({"gx_d": values}))
    band = fig.axes[0].collections[0].get_datalim(fig.axes[0].transData)
    assert band.y1 == pytest.approx(40)
    assert len(to_svg(fig)) < 400_000


@pytest.mark.parametrize("metric", EVERY, ids=lambda m: m.name)
def test_a_run_that_diverged_has_a_figure_that_counts_what_is_undefined(metric):
    with np.errstate(all="ignore"):
        given = tables(descend(quadratic(np.diag([100.0, 1.0]), np.ones(2)), 0.5, 250))
    fig = drawn(metric, given)
    assert to_png(fig, dpi=40).startswith(b"\x89PNG")
    labels = fig.axes[0].get_legend_handles_labels()[1]
    table = measure(metric, given).table.filter(pl.col("pairing").cast(pl.String) == metric.pairings[0])
    undefined = int(table["value"].is_nan().sum())
    assert not undefined or not table["value"].is_finite().any() or f"undefined ({undefined})" in labels


def test_dollar_signs_in_a_title_are_no_formula():
    metric = Metric(name="mine", units=Units(loss=1), value=gx_d, title="cost in $ and $\\nonsense", formula="a $ b $")
    assert to_svg(drawn(metric, tables(descend(logistic(1), 0.3, 20)))).startswith("<svg")


def test_a_figure_of_its_own_is_a_whole_picture_without_any_other_file():
    alone = standalone(drawing(drawn(metrics()["convexity_gap"], tables(descend(logistic(1), 0.3, 20)))))
    root = ElementTree.fromstring(alone)
    named = {each.get("id") for each in root.iter()}
    referred = {each.get("href").removeprefix("#") for each in root.iter() if each.get("href")}
    assert referred
    assert referred <= named
    assert not re.search(r"https?://(?!www\.w3\.org)", alone)


def test_no_words_of_a_panel_meet_another_panel():
    fig = drawn(metrics()["loss_change"], tables(descend(logistic(1), 0.3, 60)))
    fig.draw_without_rendering()
    above, below = fig.axes
    assert key_of(above).get_window_extent().y0 > below.title.get_window_extent().y1
    whole = fig.bbox
    for axes in fig.axes:
        found = axes.get_tightbbox()
        assert whole.x0 <= found.x0 < found.x1 <= whole.x1
        assert whole.y0 <= found.y0 < found.y1 <= whole.y1


@pytest.mark.parametrize("run_id", ["a-run-with-a-name-of-its-own", 3 * "a-run-with-a-very-long-name-"])
def test_all_words_of_a_figure_are_inside_it(run_id):
    run = descend(logistic(1), 0.3, 60)
    given = tables(run, references={name: run.x[-1] + 0.1 * i for i, name in enumerate(REFERENCES)}, run_id=run_id)
    for metric in EVERY:
        fig = drawn(metric, given)
        fig.draw_without_rendering()
        for axes in fig.axes:
            words = axes.get_tightbbox()
            assert fig.bbox.x0 <= words.x0 < words.x1 <= fig.bbox.x1, metric.name


def test_figures_can_be_drawn_by_several_threads_at_once():
    given = tables(descend(logistic(1), 0.3, 60))
    alone = to_svg(drawn(EVERY[0], given))
    found = []
    threads = [Thread(target=lambda: found.append(to_svg(drawn(EVERY[0], given)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [alone] * 3


def test_every_value_of_the_model_is_drawn_for_a_short_run():
    given = tables(descend(logistic(1), 0.3, 60), blocks=2)
    result = measure(metrics()["smoothness"], given)
    points = figure(metrics()["smoothness"], result.table, result.verdicts).axes[0].lines[0].get_ydata()
    model = result.table.filter(pl.col("block").cast(str) == "model")["value"]
    assert points == pytest.approx(model.to_numpy())
