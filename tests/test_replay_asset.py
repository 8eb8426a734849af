"""What Dagster shows of a replay, and that a replay makes stale what reads it and nothing else; on a real instance."""

from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from analysis.registry import metrics
from analysis.replay_columns import depends_on_replay
from analysis.replayed import Replayed
from pipeline.definitions import build
from pipeline.instance import opened
from pipeline.materialize import materialize
from pipeline.replay_asset import CURRENT, REPEATS, replay_checks
from tests.replay_problems import record
from tests.test_pipeline_assets import check_results, latest
from tracer.replay.replay import Asked, replay
from tracer.store import Trace

READ = {"convexity_gap", "reference_gap", "full_curve_convexity", "proofs"}  # what a replay changes; σ_f of the first
NOT_READ = {"smoothness", "update_correlation"}
CHOSEN = sorted(READ | NOT_READ | {"trace", "geometry", "replays", "verdicts"})
WATCHED = ("full_curve_convexity", "smoothness")  # automation takes two seconds an asset
ASKED = Asked(references=["last"], full_batch=1)


@pytest.fixture
def computed(empty_home: Path) -> Path:
    """A home with one run that can be replayed, computed before that; only a few of its assets, to be quick."""
    record(empty_home / "runs" / "quad", "quadratic", 20, 0.3, probes=["look_back"])
    compute(CHOSEN)
    return empty_home


def compute(selection: list[str]) -> None:
    (outcome,) = materialize(["quad"], selection)
    assert outcome.succeeded, outcome.failures


def ask(asked: Asked = ASKED) -> None:
    replay("quad", asked, allow=["tests.replay_problems"])


def stale() -> set[str]:
    with opened() as instance:
        graph = build().resolve_asset_graph()
        resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
        return {name for name in CHOSEN if resolver.get_status(dg.AssetKey(name), "quad") == StaleStatus.STALE}


def page(asset: str) -> dict[str, Any]:
    with opened() as instance:
        return dict(latest(instance, asset, "quad").asset_materialization.metadata)


def verdict(home: Path, metric: str) -> dict[str, Any]:
    table = pl.read_parquet(home / "tables" / "quad" / "verdicts.parquet")
    return table.filter(pl.col("metric") == metric, pl.col("pairing").is_in(["previous", "reference:last"])).to_dicts()[
        0
    ]


def test_a_replay_makes_stale_what_reads_it_and_nothing_else(computed: Path) -> None:
    assert stale() == set()
    assert "lemmata replay quad --full-batch" in verdict(computed, "full_curve_convexity")["reason"]
    assert "lemmata replay quad --references last" in verdict(computed, "reference_gap")["reason"]
    assert "Nothing was replayed" in page("replays")["replayed"].value
    with opened() as instance:
        for check in check_results(instance, "replays", "quad").values():
            assert (check.passed, check.description) == (False, "NOT APPLICABLE: nothing was replayed.")
        before = {name: latest(instance, name, "quad").storage_id for name in NOT_READ}
        first = dg.evaluate_automation_conditions(build(), instance, dg.AssetSelection.assets(*WATCHED))
        assert first.total_requested == 0

    ask()
    compute(["replays", "verdicts"])
    assert stale() - {"verdicts"} == READ
    in_table = set(pl.read_parquet(computed / "tables" / "quad" / "verdicts.parquet")["metric"])
    assert in_table == NOT_READ, "an old verdict never stands beside a new replay"
    with opened() as instance:
        watched = dg.AssetSelection.assets(*WATCHED)
        again = dg.evaluate_automation_conditions(build(), instance, watched, cursor=first.cursor)
        asked = [name for name in WATCHED if again.get_requested_partitions(dg.AssetKey(name))]
    assert asked == ["full_curve_convexity"], "automation computes what reads the replay"

    compute(sorted(READ | {"verdicts"}))
    assert stale() == set()
    for metric in ("full_curve_convexity", "reference_gap"):
        assert verdict(computed, metric)["pairs"] >= 18
    ask()  # the same again
    compute(["replays"])
    assert stale() == set()
    with opened() as instance:
        assert {name: latest(instance, name, "quad").storage_id for name in NOT_READ} == before
        found = check_results(instance, "replays", "quad")
    assert found[REPEATS].passed
    assert found[CURRENT].passed
    assert "20 recorded losses were replayed: all came back bit for bit" in found[REPEATS].description
    shown = page("replays")
    rows = {row.data["table"]: row.data for row in shown["replayed"].value.records}
    assert rows.keys() == {"repeat", "reference:last", "full_batch"}
    assert (rows["full_batch"]["rows"], rows["full_batch"]["complete"]) == (21, "yes")
    assert rows["full_batch"]["written"].endswith("UTC")
    assert shown["σ_f"].value == 0


def test_losses_that_do_not_come_back_and_a_run_that_went_on_are_told(tmp_path: Path) -> None:
    path = record(tmp_path / "quad", "quadratic", 5, 0.3)
    name = "tests.replay_problems:another"
    replay(path, Asked(), workload=name, accept_disagreement=True, into=tmp_path / "tables")
    repeats, current = replay_checks(Replayed(tmp_path / "tables"), Trace(path).digest)
    assert not repeats.passed
    assert "replayed losses differ from the recorded ones" in (repeats.description or "")
    assert current.passed
    _, outdated = replay_checks(Replayed(tmp_path / "tables"), "another digest")
    assert not outdated.passed
    assert "The run has gone on" in (outdated.description or "")


def test_only_metrics_that_read_a_replay_depend_on_it() -> None:
    graph = build().resolve_asset_graph()
    for name, metric in metrics().items():
        parents = {key.path[-1] for key in graph.get(dg.AssetKey(name)).parent_keys}
        needs = depends_on_replay(metric.all_columns, metric.pairings)
        assert parents == ({"geometry", "replays"} if needs else {"geometry"}), name
