"""What reports and comparisons say: nothing that is not drawn, not there, or said otherwise a line below."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import analysis.pages.across
from analysis.judging.evidence import Evidence
from analysis.judging.verdict import judge
from analysis.measure import measure, measure_all
from analysis.metric import Claim, Metric
from analysis.pages.across import ANSWER_SCHEMA, CURRENT, RUN_SCHEMA, Across
from analysis.pages.compare import Compared, compare, rates
from analysis.pages.comparison_plates import smoothness_against_rate
from analysis.pages.drawing import canvas, line
from analysis.pages.figures import figure
from analysis.pages.measured import Measured
from analysis.pages.plates import NEEDS, PLATES
from analysis.pages.proof_plate import proof_bounds
from analysis.pages.report import report
from analysis.pages.report_section import section
from analysis.proofs import proofs
from analysis.proving.prove import evaluate_all
from analysis.registry import metrics
from analysis.tables import Tables
from pipeline.across import gather
from pipeline.comparison import write_comparison
from pipeline.materialize import materialize
from tests.conftest import Lemmata
from tests.problems import descend, logistic
from tests.tables_by_hand import tables
from tracer.errors import UsageError

CHOSEN = ("convexity_gap", "smoothness")


def two_rates() -> Tables:
    """A run whose groups of parameters have different learning rates: as a whole it has none."""
    run = descend(logistic(1), 0.3, 60)
    given = tables(run, pairings=("previous", "next", "unpaired"), references={"last": run.x[-1]})
    return replace(given, steps=given.steps.with_columns(lr=pl.lit(None, pl.Float64)))


def named_without_a_line(axes: Any) -> list[str]:
    """Words of a legend for which nothing is drawn."""
    return [str(each.get_label()) for each in axes.lines if not len(each.get_xdata()) and each.get_label()[0] != "_"]


@pytest.mark.parametrize("name", PLATES)
def test_no_plate_names_a_line_that_it_does_not_draw(name: str) -> None:
    given = two_rates()
    names = {each for needed in NEEDS.values() for each in needed}
    found = measure_all([metrics()[each] for each in sorted(names)], given)
    data = Measured("r", {each: (of.table, of.verdicts) for each, of in found.items()}, given.steps.collect())
    fig = PLATES[name](data)
    assert [named_without_a_line(axes) for axes in fig.axes] == [[] for _ in fig.axes]
    if name == "smoothness":
        labels = [label for axes in fig.axes for label in axes.get_legend_handles_labels()[1]]
        assert "largest so far" in labels
        assert not [label for label in labels if "lr" in label]


@pytest.mark.parametrize("metric", metrics().values(), ids=lambda m: m.name)
def test_no_figure_of_a_metric_names_a_line_that_it_does_not_draw(metric: Metric) -> None:
    found = measure(metric, two_rates())
    for axes in figure(metric, found.table, found.verdicts).axes:
        assert named_without_a_line(axes) == []


def test_a_line_of_one_point_is_a_mark() -> None:
    axes = canvas("one", "", (4, 3)).subplots()
    line(axes, np.array([3]), np.array([1.0]), "alone", "#000000")
    assert axes.lines[0].get_marker() == "."


def test_the_key_of_the_proofs_names_what_is_drawn() -> None:
    given = tables(descend(logistic(1), 0.3, 60))
    lines = pl.concat([each.table for each in evaluate_all(proofs().values(), given).values()])
    sound = lines.filter(pl.col("status") != "FAILS")
    (key,) = proof_bounds("r", sound).legends
    assert "bound, exceeded" not in [text.get_text() for text in key.get_texts()]


def of_runs(**rates_of: float | None) -> pl.DataFrame:
    smooth = {"smoothness_median": 1.0, "smoothness_largest": 2.0}
    rows = [{"run_id": name, "optimizer": "SGD", "lr": rate, **smooth} for name, rate in rates_of.items()]
    return pl.DataFrame(rows, schema_overrides={"lr": pl.Float64})


def test_a_run_without_a_single_learning_rate_is_named_in_the_figure() -> None:
    heading = smoothness_against_rate(of_runs(plain=0.1, grouped=None)).axes[0].get_title(loc="left")
    assert "not shown: grouped (no single learning rate)" in " ".join(heading.split())
    assert "plain" not in heading
    assert "not shown" not in smoothness_against_rate(of_runs(plain=0.1)).axes[0].get_title(loc="left")


def test_a_run_without_smoothness_is_named_and_of_many_only_some() -> None:
    of = of_runs(plain=0.1, other=0.1).with_columns(
        smoothness_median=pl.when(pl.col("run_id") == "plain").then(1.0), smoothness_largest=pl.lit(2.0)
    )
    heading = smoothness_against_rate(of).axes[0].get_title(loc="left")
    assert "not shown: other (no smoothness of fresh pairs)" in " ".join(heading.split())
    many = of_runs(plain=0.1, **{f"run-{i:03}": None for i in range(200)})
    fig = smoothness_against_rate(many)
    fig.draw_without_rendering()
    heading = " ".join(fig.axes[0].get_title(loc="left").split())
    assert "run-000" in heading
    assert "run-199" not in heading
    assert re.search(r"and \d+ more \(no single learning rate\)", heading)


def test_when_no_run_can_be_shown_the_figure_says_of_each_why() -> None:
    said = smoothness_against_rate(of_runs(grouped=None)).axes[0].texts[0].get_text()
    assert "no run has both a single learning rate" in said
    assert "grouped (no single learning rate)" in " ".join(said.split())


def compared(run_id: str, momentum: float | None, steps: int = 60) -> Compared:
    given = tables(descend(logistic(1), 0.3, steps), run_id=run_id)
    found = measure_all([metrics()[name] for name in (*CHOSEN, "violation_mass")], given)
    verdicts = pl.concat([each.verdicts for each in found.values()])
    momenta = [] if momentum is None else [momentum] * steps
    return Compared(given.facts, verdicts, rates=[0.3] * steps, momenta=momenta)


def test_momentum_is_named_beside_each_other_as_across_all() -> None:
    runs = [compared("heavy", 0.9), compared("light", 0.0), compared("plain", None)]
    assert rates(runs)["optimizer"].to_list() == ["SGD with momentum", "SGD", "SGD"]
    assert "<td>SGD with momentum</td><td>SGD</td><td>SGD</td>" in compare(runs, {})


def test_no_interval_stands_where_there_is_no_number() -> None:
    runs = [compared("whole", None), compared("empty", None, steps=0)]
    letters = {name: metrics()[name].family for name in (*CHOSEN, "violation_mass")}
    assert "[−∞, ∞]" not in compare(runs, letters)
    given = tables(descend(logistic(1), 0.3, 0))
    metric = metrics()["violation_mass"]
    found = measure(metric, given)
    assert np.isinf(found.verdicts["lower"].to_numpy()).any()  # or the test is of nothing
    assert "∞" not in report(given.facts, {metric.name: (metric, found.table, found.verdicts)}, [])


def test_the_comparison_names_runs_to_which_nothing_applies() -> None:
    runs = [{"run_id": name, "state": CURRENT, "why": "", "optimizer": "SGD"} for name in ("whole", "empty")]
    answer = {"metric": "m", "claim": "c", "kind": "previous", "pairing": "previous"}
    answers = [
        {"run_id": "whole", "status": "HOLDS", **answer},
        {"run_id": "empty", "status": "NOT APPLICABLE", **answer},
    ]
    findings = pl.DataFrame(schema=dict.fromkeys(("run_id", "proof", "status", "reason"), pl.String))
    found = Across(pl.DataFrame(runs, schema=RUN_SCHEMA), pl.DataFrame(answers, schema=ANSWER_SCHEMA), findings)
    assert found.said == "2 of 2 runs are up to date; no claim applies to empty, which stands in no figure of verdicts"
    assert found.said in analysis.pages.across.page(found, {}, {})


def status_of(html: str) -> str:
    head = re.search(r"<summary>.*?</summary>", html, flags=re.DOTALL)
    assert head is not None
    (status,) = re.findall(r'class="small status [\w-]+">([^<]+)<', head[0])
    return status


def test_a_metric_judged_at_a_control_alone_has_the_status_of_the_control() -> None:
    run = descend(logistic(1), 0.3, 400)
    found = measure(metrics()["d_bound"], tables(run, references={"initial": run.x[0], "last": run.x[-1]}))
    (row,) = found.verdicts.filter(pl.col("rule") != "none").to_dicts()
    assert row["pairing"] == "reference:initial"
    html, _ = section(metrics()["d_bound"], found.table, found.verdicts)
    assert status_of(html) == row["status"] != "described"


def test_a_control_counts_no_more_where_another_point_was_judged() -> None:
    run = descend(logistic(1), 0.3, 400)
    found = measure(metrics()["aiming"], tables(run, references={"initial": run.x[0], "last": run.x[-1]}))
    forced = found.verdicts.with_columns(
        status=pl.when(pl.col("pairing") == "reference:initial").then(pl.lit("FAILS")).otherwise(pl.lit("HOLDS"))
    )
    assert status_of(section(metrics()["aiming"], found.table, forced)[0]) == "HOLDS"


def evidence(quantity: np.ndarray[Any, Any], **given: Any) -> Evidence:
    n = len(quantity)
    none = np.zeros(n, bool)
    return Evidence(np.arange(n), quantity, np.full(n, 1e-9), none, none, **given)


def test_the_reason_of_an_envelope_is_a_sentence_with_formulas_as_they_are_written() -> None:
    random = np.random.default_rng(0)
    size = random.uniform(1, 2, 4000)
    claim = Claim(
        at_most=2,
        over="envelope",
        at_quantile=0.99,
        regressors=(pl.col("d_d").sqrt(), pl.max_horizontal(pl.col("ga_gb"), 0.0), pl.col("gx_gx") + pl.col("gy_gy")),
    )
    given = evidence(size * random.uniform(0, 1, 4000), regressors=np.stack([size, size**2, size**3], axis=1))
    reason = judge(claim, given).reason
    assert "· d_d.sqrt() + " in reason
    assert "· max_horizontal(ga_gb, 0) + " in reason
    assert "· (gx_gx + gy_gy)" in reason
    assert "col(" not in reason
    assert "share of the second half above the envelope, over the nominal 0.01: " in reason
    assert not re.search(r"nominal 0\.01 \d", reason)


def bounded(**within: Any) -> Claim:
    return Claim(at_least=0, over="on average", **within)


def test_an_interval_is_shown_within_the_range_of_its_quantity_and_decides_as_before() -> None:
    ranks = 1 + np.random.default_rng(0).normal(size=4000) * 2
    for values in (ranks, ranks - 1, ranks - 2):
        free, kept = (judge(claim, evidence(values)) for claim in (bounded(), bounded(within=(-1.0, 1.0))))
        assert (free.status, free.estimate) == (kept.status, kept.estimate)
        assert -1 <= kept.lower <= kept.upper <= 1
        assert kept.lower == np.clip(free.lower, -1, 1)
        assert kept.upper == np.clip(free.upper, -1, 1)
        assert f"[{kept.lower:.6g}, {kept.upper:.6g}]" in kept.reason


def test_the_rank_correlation_is_shown_as_one() -> None:
    (claim,) = metrics()["bound_rank"].claims
    assert claim.within == (-1.0, 1.0)


def test_a_bound_outside_the_range_of_its_quantity_is_refused() -> None:
    with pytest.raises(UsageError, match=r"within=\(-1\.0, 1\.0\) does not contain the bound 2"):
        Claim(at_least=2, over="on average", within=(-1.0, 1.0))


@pytest.fixture(scope="module")
def computed(module_home: Path) -> Iterator[Path]:
    """A home with two computed runs; as if there were one metric."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.definitions.metrics", known)
        asked = ["trace", "geometry", "smoothness", "verdicts"]
        assert [outcome.failures for outcome in materialize(["sgdm", "adamw"], asked)] == [(), ()]
        for name in ("sgdm", "adamw"):
            (module_home / "tables" / name / "report.html").touch()
        yield module_home


def known() -> dict[str, Metric]:
    return {"smoothness": metrics()["smoothness"]}


def test_both_comparisons_call_the_optimizers_the_same(computed: Path, tmp_path: Path) -> None:
    across = gather(known(), {}).runs.sort("run_id")["optimizer"].to_list()
    assert across == ["AdamW", "SGD with momentum"]
    page = write_comparison(["adamw", "sgdm"], tmp_path / "two.html").read_text(encoding="utf-8")
    assert "".join(f"<td>{name}</td>" for name in across) in page


def test_a_directory_for_the_page_of_several_runs_is_refused_by_name(
    computed: Path, tmp_path: Path, lemmata: Lemmata
) -> None:
    code, _, err = lemmata("report", "adamw", "sgdm", "--output", str(tmp_path))
    assert code == 2
    assert "Errno" not in err
    assert f"--output {tmp_path}: a directory" in err
    assert str(tmp_path / "comparison.html") in err
    assert list(tmp_path.iterdir()) == []
