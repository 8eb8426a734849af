"""All runs of a home beside each other: what is compared, what is not and why, and when it is computed again."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from analysis.pages.across import ANSWER_SCHEMA, RUN_SCHEMA, answers, page, second_half
from analysis.pages.comparison_plates import verdicts_by_optimizer, verdicts_by_run
from analysis.pages.grouped import groups
from analysis.proofs import proofs
from analysis.registry import metrics
from pipeline.across import gather, version
from pipeline.definitions import build
from pipeline.instance import opened, register
from pipeline.materialize import materialize

CHOSEN = ("descent_term", "smoothness", "reference_cosine")
ASKED = ["trace", "geometry", *CHOSEN, "proofs", "verdicts"]
KEY = dg.AssetKey("comparison")


@pytest.fixture(scope="module")
def computed(module_home: Path) -> Iterator[Path]:
    """A home with two computed runs and one that was only recorded; as if there were three metrics."""
    shutil.copytree(module_home / "runs" / "sgdm", module_home / "runs" / "later")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.definitions.metrics", known)
        assert [outcome.failures for outcome in materialize(["sgdm", "adamw"], ASKED)] == [(), ()]
        yield module_home


@pytest.fixture
def copy(computed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same runs and tables, to be changed."""
    for name in ("runs", "tables"):
        shutil.copytree(computed / name, tmp_path / name)
    monkeypatch.setenv("LEMMATA_HOME", str(tmp_path))
    return tmp_path


def known() -> dict[str, Any]:
    return {name: metrics()[name] for name in CHOSEN}


def states() -> dict[str, str]:
    return dict(gather(known(), proofs()).runs.select("run_id", "state").iter_rows())


def comparisons(instance: dg.DagsterInstance) -> list[dg.AssetMaterialization]:
    records = instance.fetch_materializations(KEY, limit=100).records
    return [record.asset_materialization for record in records if record.asset_materialization]


def test_the_second_half_of_an_odd_number_has_the_one_in_the_middle() -> None:
    frame = pl.DataFrame({"value": [1.0, 2.0, 3.0, 4.0, 5.0]})
    assert frame.select(second_half(pl.col("value")))["value"].to_list() == [3.0, 4.0, 5.0]


def test_answers_follow_the_rule_of_the_report(computed: Path) -> None:
    verdicts = pl.read_parquet(computed / "tables" / "sgdm" / "verdicts.parquet")
    found = answers(verdicts.lazy()).collect()
    assert dict(found.schema) == dict(ANSWER_SCHEMA)
    judged = [row for row in verdicts.to_dicts() if row["rule"] != "none" and row["pairing"] != "unpaired"]
    said = {
        (each.metric, each.claim, each.row["pairing"].partition(":")[0]): (each.status, each.row["pairing"])
        for each in groups(judged)
    }
    rows = found.select("metric", "claim", "kind", "status", "pairing").iter_rows()
    assert {(m, c, k): (status, pairing) for m, c, k, status, pairing in rows} == said
    assert any(kind == "reference" for _, _, kind in said)


def test_every_run_is_compared_or_named_with_the_reason(computed: Path) -> None:
    found = gather(known(), proofs())
    assert found.runs.schema == RUN_SCHEMA
    assert states() == {"sgdm": "current", "adamw": "current", "later": "not computed"}
    with opened() as instance:
        (made,) = comparisons(instance)
    assert made.metadata["compared"].value == "2 of 3 runs are up to date, 1 not computed"
    text = (computed / "tables" / "_comparison" / "comparison.html").read_text(encoding="utf-8")
    assert "lemmata materialize later" in text
    assert text.count("<script") == 1
    row = found.runs.filter(pl.col("run_id") == "sgdm").to_dicts()[0]
    smoothness = pl.read_parquet(computed / "tables" / "sgdm" / "metrics" / "smoothness.parquet")
    fresh = smoothness.filter(pl.col("pairing").cast(pl.String) == "previous").sort("step")["value"].to_list()
    half = [value for value in fresh[len(fresh) // 2 :] if value is not None and value > 0]
    assert row["smoothness_largest"] == max(half)
    assert (row["optimizer"], row["momentum"], row["steps"]) == ("SGD with momentum", 0.9, 61)


def test_what_is_outdated_is_said_and_left_out(copy: Path) -> None:
    facts = copy / "tables" / "adamw" / "verdicts.parquet"
    old = pl.read_parquet(facts)
    old.with_columns(
        fingerprint=pl.when(pl.col("metric") == "smoothness").then(pl.lit("old")).otherwise("fingerprint")
    ).write_parquet(facts)
    found = gather(known(), proofs())
    (row,) = found.left_out.filter(pl.col("run_id") == "adamw").to_dicts()
    assert row["state"] == "outdated"
    assert "1 of 3 metrics" in row["why"]
    assert "smoothness" in row["why"]
    assert row["smoothness_median"] is None
    of_run = found.answers.filter(pl.col("run_id") == "adamw")
    assert set(of_run["metric"]) == {"descent_term", "reference_cosine"}


def test_a_run_whose_table_is_damaged_hides_no_other(copy: Path) -> None:
    (copy / "tables" / "adamw" / "verdicts.parquet").write_bytes(b"PAR1 no more PAR1")
    found = gather(known(), proofs())
    (row,) = found.runs.filter(pl.col("state") == "not readable").to_dicts()
    assert row["run_id"] == "adamw"
    assert str(copy / "tables" / "adamw" / "verdicts.parquet") in row["why"]
    assert set(found.answers["run_id"]) == {"sgdm"}


def test_a_run_that_went_on_and_one_whose_recording_is_gone(copy: Path) -> None:
    steps = copy / "tables" / "adamw" / "steps.parquet"
    pl.read_parquet(steps).head(40).write_parquet(steps)
    shutil.rmtree(copy / "runs" / "sgdm")
    assert states() == {"sgdm": "current", "adamw": "outdated", "later": "not computed"}


def test_one_comparison_for_any_number_of_runs_and_fresh_until_a_run_changes(computed: Path) -> None:
    definitions = build()
    with opened() as instance:
        assert len(comparisons(instance)) == 1
        assert stale(definitions, instance) == StaleStatus.FRESH
        before = comparisons(instance)[0].tags["dagster/data_version"]
    shutil.rmtree(computed / "runs" / "later")
    materialize(["sgdm"], ["verdicts"])  # the same verdicts again, and a run less
    with opened() as instance:
        again, first = (each.tags["dagster/data_version"] for each in comparisons(instance))
    assert (first, again != before) == (before, True)
    assert again == version(gather(known(), proofs()))


def stale(definitions: dg.Definitions, instance: dg.DagsterInstance) -> StaleStatus:
    resolver = CachingStaleStatusResolver(instance, definitions.resolve_asset_graph(), LoadingContextForTest(instance))
    return resolver.get_status(KEY)


def test_automation_compares_once_for_any_number_of_changed_runs(
    computed: Path,
) -> None:
    definitions = build()
    condition = dg.AssetSelection.assets("comparison")
    with opened() as instance:
        before = dg.evaluate_automation_conditions(definitions, instance, condition)
        quiet = dg.evaluate_automation_conditions(definitions, instance, condition, cursor=before.cursor)
        assert (before.total_requested, quiet.total_requested) == (0, 0)
        for run_id in ("sgdm", "adamw"):
            changed(instance, run_id)
        once = dg.evaluate_automation_conditions(definitions, instance, condition, cursor=quiet.cursor)
        assert once.total_requested == 1
        again = dg.evaluate_automation_conditions(definitions, instance, condition, cursor=once.cursor)
        assert again.total_requested == 0


def changed(instance: dg.DagsterInstance, run_id: str) -> None:
    """Verdicts of a run that are not what they were."""
    event = dg.AssetMaterialization("verdicts", partition=run_id, tags={"dagster/data_version": "changed"})
    instance.report_runless_asset_event(event)


def test_nothing_is_compared_before_anything_is_computed(home: Path) -> None:
    with opened() as instance:
        register(instance, ["sgdm", "adamw"])
        condition = dg.AssetSelection.assets("comparison")
        assert dg.evaluate_automation_conditions(build(), instance, condition).total_requested == 0


def many(template: Path, root: Path, number: int) -> None:
    """A home with ``number`` runs that all found what one found."""
    for at in range(number):
        (root / "tables" / f"run-{at:03}").mkdir(parents=True)
        for name in ("verdicts.parquet", "steps.parquet", "facts.json", "metrics", "proof_findings.parquet"):
            (root / "tables" / f"run-{at:03}" / name).symlink_to(template / name)


def test_two_hundred_runs_take_seconds(computed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many(computed / "tables" / "sgdm", tmp_path, 200)
    monkeypatch.setenv("LEMMATA_HOME", str(tmp_path))
    began = time.process_time()
    found = gather(known(), proofs())
    text = page(found, {}, {})
    assert time.process_time() - began < 60  # some 3 here; reading every table of each would take minutes
    assert (len(found.runs), set(found.runs["state"])) == (200, {"current"})
    assert len(text) < 2_000_000


def told(**shares: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Answers and runs: of each optimizer three runs, of which so many meet the claim."""
    rows = [
        (f"{name}-{at}", name, "m", "c", "previous", "HOLDS" if at < holding else "FAILS")
        for name, holding in shares.items()
        for at in range(3)
    ]
    names = ["run_id", "optimizer", "metric", "claim", "kind", "status"]
    table = pl.DataFrame(rows, schema=names, orient="row")
    return table.drop("optimizer"), table.select("run_id", "optimizer", lr=pl.lit(0.1))


def test_a_bar_is_the_share_of_an_optimizers_runs() -> None:
    found, runs = told(AdamW=3, SGD=1)
    figure = verdicts_by_optimizer(found, runs)
    widths = {axes.get_title(loc="left"): [round(bar.get_width(), 6) for bar in axes.patches] for axes in figure.axes}
    assert widths == {"AdamW\n3 runs": [1, 0, 0], "SGD\n3 runs": [0.333333, 0, 0.666667]}


def test_a_cell_is_a_run_and_a_claim() -> None:
    found, runs = told(AdamW=3, SGD=1)
    (mesh,) = verdicts_by_run(found, runs).axes[0].collections
    assert mesh.get_array().ravel().tolist() == [0, 0, 0, 0, 2, 2]


def test_without_verdicts_the_figures_say_so() -> None:
    found, runs = told()
    for draw in (verdicts_by_optimizer, verdicts_by_run):
        assert "no run has" in draw(found, runs).axes[0].texts[0].get_text()
