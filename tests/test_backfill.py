"""A backfill as the UI launches it: many recorded runs in few Dagster runs, each with a page and version of its own."""

import shutil
from pathlib import Path

import dagster as dg
import pytest

from pipeline import ranges
from pipeline.definitions import build
from pipeline.instance import opened, register
from pipeline.rerun import rerun
from tests.backfilling import BACKFILL, launched, launched_runs
from tests.browser import served
from tests.by_hand import flip_in
from tests.rerun_faults import settle
from tests.rerun_homes import BASES, FEW, OWN, record, stale_of, tables
from tracer.errors import UsageError
from tracer.store import home

RUNS = ("one", "two", "three")
EVERYTHING = BASES | set(FEW)


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with three recorded runs, of which nothing has been computed."""
    settle(monkeypatch, tmp_path / "home")
    monkeypatch.delenv("LEMMATA_BACKFILL", raising=False)
    for name in RUNS:
        record(name)
    return tmp_path


def in_one_run(instance: dg.DagsterInstance, *names: str) -> dg.DagsterRun:
    """One Dagster run of neighbouring partitions, as a backfill asks for it."""
    between = {
        "dagster/asset_partition_range_start": RUNS[0],
        "dagster/asset_partition_range_end": RUNS[-1],
        BACKFILL: "told",
    }
    job = build().resolve_implicit_global_asset_job_def()
    keys = [dg.AssetKey(name) for name in names]
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    job.execute_in_process(
        instance=instance, asset_selection=keys, tags=between, run_config=quiet, raise_on_error=False
    )
    return next(run for run in instance.get_runs() if "dagster/asset_partition_range_start" in run.tags)


def pages(instance: dg.DagsterInstance, asset: str, run_id: str) -> list[dg.AssetMaterialization]:
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[run_id])
    records = instance.fetch_materializations(wanted, limit=10).records
    return [record.asset_materialization for record in records if record.asset_materialization]


def test_many_runs_in_one_dagster_run_are_what_each_is_alone(recorded: Path) -> None:
    with opened() as instance:
        register(instance, RUNS)
        assert in_one_run(instance, *EVERYTHING).status == dg.DagsterRunStatus.SUCCESS
        assert {len(pages(instance, name, run_id)) for name in EVERYTHING for run_id in RUNS} == {1}
        versions = {name: [pages(instance, name, run)[0].tags["dagster/data_version"] for run in RUNS] for name in FEW}
        assert {len(set(each)) for each in versions.values()} == {3}, "every run has a version of its own"
        rows = [pages(instance, "smoothness", run)[0].metadata["path"].value for run in RUNS]
        assert [Path(each).parents[1].name for each in rows] == list(RUNS)
        for key in (key for name in FEW for key in checks_of(name)):
            records = instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
            assert {record.partition for record in records} == set(RUNS)
            assert {record.status.value for record in records} <= {"SUCCEEDED", "FAILED"}
    assert not any(stale_of(*RUNS).values()), "files and instance have the same versions"
    backfilled = tables("one")
    shutil.rmtree(home.tables_root())
    rerun(["one"], jobs=1)
    assert tables("one") == backfilled


def checks_of(name: str) -> list[dg.AssetCheckKey]:
    return list(build().resolve_asset_graph().get(dg.AssetKey(name)).check_keys)


def test_a_damaged_run_neither_blocks_nor_hides_the_others_of_a_backfill(recorded: Path) -> None:
    chunk = next((home.runs_root() / "two").glob("chunk-*"))
    flip_in(chunk, "g")
    asked = ("trace", "geometry", "smoothness", "verdicts", "report")
    with opened() as instance:
        register(instance, RUNS)
        in_one_run(instance, *asked)
        assert {run_id: len(pages(instance, "report", run_id)) for run_id in RUNS} == {"one": 1, "two": 0, "three": 1}
        failed = instance.get_runs(filters=dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
        (told,) = [run for run in failed if run.tags.get(ranges.FAILED)]
        assert (told.tags["dagster/partition"], told.tags[ranges.FAILED]) == ("two", "trace")
        assert told.tags[BACKFILL] == "told", "the backfill counts it"
        text = "".join(str(entry.dagster_event) for entry in instance.all_logs(told.run_id))
        assert str(chunk) in text
        key = dg.AssetCheckKey(dg.AssetKey("trace"), "sound_files")
        history = instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
        assert {record.partition: record.status.value for record in history} == {
            "one": "SUCCEEDED",
            "two": "FAILED",
            "three": "SUCCEEDED",
        }
    assert not (home.tables_root() / "two" / "verdicts.parquet").exists()


def test_how_many_runs_are_computed_together_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEMMATA_BACKFILL", raising=False)
    assert ranges.policy() == dg.BackfillPolicy.multi_run(50)
    monkeypatch.setenv("LEMMATA_BACKFILL", "1")
    assert ranges.policy() == dg.BackfillPolicy.multi_run(1)
    for wrong in ("0", "-3", "many"):
        monkeypatch.setenv("LEMMATA_BACKFILL", wrong)
        with pytest.raises(UsageError, match=f"LEMMATA_BACKFILL={wrong}"):
            ranges.policy()


def test_the_ui_backfills_one_new_metric_of_all_runs(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real server, real daemons: what the button of the UI sends, until the daemon calls it done."""
    rerun(RUNS, metrics=None, jobs=1)
    (recorded / "own").mkdir()
    (recorded / "own" / "own.py").write_text(OWN)
    monkeypatch.setenv("LEMMATA_METRICS", str(recorded / "own"))
    with served() as address:
        done = launched(address, ["own"], RUNS)
        assert done["status"] == "COMPLETED_SUCCESS", done
        assert launched_runs(address, done["id"]) == ["SUCCESS"], "three runs, one process"
    with opened() as instance:
        assert all(len(pages(instance, "own", run_id)) == 1 for run_id in RUNS)
    for run_id in RUNS:
        assert (home.tables_root() / run_id / "verdicts" / "own.parquet").is_file()
