"""Reruns of many runs: what fails stands alone, what is killed leaves nothing partial, bytes do not depend on who."""

import multiprocessing
import shutil
import time
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from analysis.soundness.checks import trace_checks
from pipeline.compute import Graph, compute
from pipeline.definitions import build
from pipeline.instance import opened
from pipeline.materialize import materialize
from pipeline.pool import DIED, Pool
from pipeline.rerun import rerun
from tests.by_hand import flip_in
from tests.rerun_faults import RUNS, Killed, settle, started
from tests.rerun_homes import BASES, FEW, OWN, last, other_kernel, record, say, stale_of, tables
from tracer.store import home
from tracer.store.archive import archive


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    return Killed(tmp_path_factory.mktemp("killed"))


@pytest.fixture
def fresh(killed: Killed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with two recorded runs, of which nothing has been computed."""
    settle(monkeypatch, tmp_path / "home")
    for name in RUNS:
        record(name)
    return tmp_path / "home"


@pytest.mark.parametrize("seed", range(2))
def test_a_killed_rerun_leaves_nothing_partial_and_the_next_ends_with_the_same_bytes(killed: Killed, seed: int) -> None:
    killed(seed)


def test_two_reruns_of_the_same_runs_at_once_are_safe(killed: Killed, fresh: Path) -> None:
    with opened():
        pass
    both = [started(), started()]
    assert [child.wait(timeout=600) for child in both] == [0, 0]
    for child in both:
        assert child.stdout is not None
        child.stdout.close()
    rerun(RUNS, jobs=1)  # the second may have been told that an input was replaced meanwhile; nothing is lost by it
    killed.check_same()


def test_a_pool_and_dagster_write_the_same_bytes(killed: Killed, fresh: Path) -> None:
    few = ("trace", "geometry", "replays", *FEW)
    planned = {name: dict.fromkeys(few, "asked for") for name in RUNS}
    with Pool(2) as pool:
        done = list(pool.computed(planned, Graph.of(build())))
    assert {each.run_id: (tuple(each.assets[:2]), each.failures) for each in done} == dict.fromkeys(RUNS, (few[:2], []))
    pooled = {name: tables(name) for name in RUNS}
    assert all(pooled[name].items() <= killed.reference[name].items() for name in RUNS)
    assert {"geometry.parquet", "metrics/smoothness.parquet"} <= pooled["one"].keys()
    shutil.rmtree(home.tables_root())
    materialize(["one"])
    assert tables("one") == killed.reference["one"]


def test_processes_that_wait_for_a_plan_end_where_planning_fails_and_no_others_do() -> None:
    not_of_the_pool = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    not_of_the_pool.start()
    before = set(multiprocessing.active_children())

    def fail() -> None:
        with Pool(2) as pool:
            pool.expect(1)
            assert set(multiprocessing.active_children()) == before, "of one run this process computes"
            pool.expect(2)
            assert len(set(multiprocessing.active_children()) - before) == 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert set(multiprocessing.active_children()) == before
    not_of_the_pool.terminate()
    not_of_the_pool.join()


def test_processes_end_where_less_was_found_to_do_than_expected() -> None:
    before = set(multiprocessing.active_children())
    with Pool(2) as pool:
        pool.expect(2)
    assert set(multiprocessing.active_children()) == before


DEADLY = """
import os
import signal
from multiprocessing import parent_process

import pipeline.compute

if parent_process() is not None:  # a process that computes for another one

    def deadly(run_id, *rest):
        if run_id == "one":
            os.kill(os.getpid(), signal.SIGKILL)
        return harmless(run_id, *rest)

    harmless, pipeline.compute._in_order = pipeline.compute._in_order, deadly
"""


def test_a_process_that_dies_costs_no_run_but_the_one_that_kills_it(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "own.py").write_text(OWN + DEADLY)
    monkeypatch.setenv("LEMMATA_METRICS", str(tmp_path / "own"))
    one, two = rerun(RUNS, jobs=2)
    assert [(failure.asset, "killed" in failure.message) for failure in one.failures] == [(DIED, True)]
    assert two.succeeded
    (tmp_path / "own" / "own.py").unlink()
    assert all(outcome.succeeded for outcome in rerun(RUNS, jobs=2))


def test_a_failed_run_neither_blocks_nor_hides_the_others(fresh: Path, capfd: pytest.CaptureFixture[str]) -> None:
    chunk = next((home.runs_root() / "one").glob("chunk-*"))
    flip_in(chunk, "g")
    assert say(["rerun", "--stale", "--jobs", "1"]) == 1
    said = capfd.readouterr()
    assert f"{chunk}" in said.err
    assert "1 of 2 runs" in said.err
    assert stale_of(*RUNS) == {"one": BASES | set(FEW), "two": set()}
    with opened() as instance:
        assert last(instance, "report", "two") is not None
        assert instance.get_latest_materialization_event(dg.AssetKey("comparison")) is not None
        assert last(instance, "geometry", "one") is None
        failed = instance.get_runs(filters=dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
        assert [run.tags["dagster/partition"] for run in failed if "dagster/partition" in run.tags] == ["one"]
    assert say(["rerun", "--stale", "two"]) == 0
    assert "Nothing is stale." in capfd.readouterr().out
    assert say(["rerun", "--stale", "--dry-run"]) == 0
    assert "one: not verified" in capfd.readouterr().out


def test_a_wrong_call_says_so(fresh: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for arguments, word in (
        (["rerun"], "--stale"),
        (["rerun", "--stale", "nothing"], "no such run"),
        (["rerun", "--stale", "--metric", "nothing"], "convexity_gap"),
    ):
        assert say(arguments) == 2
        assert word in capfd.readouterr().err


def test_ctrl_c_keeps_what_was_done_and_the_next_rerun_goes_on(fresh: Path) -> None:
    def interrupt(done: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rerun(RUNS, jobs=1, said=interrupt)
    assert stale_of(*RUNS) == {"one": set(), "two": BASES | set(FEW)}
    with opened() as instance:
        assert not instance.get_runs(filters=dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))


def test_nothing_is_computed_from_a_geometry_whose_identities_fail(
    fresh: Path,
) -> None:
    def broken(given: object) -> list[object]:
        first, *rest = trace_checks(given)  # type: ignore[arg-type]
        return [replace(first, passed=False, severity="error"), *rest]

    reasons = dict.fromkeys(("trace", "geometry", "smoothness", "verdicts"), "asked for")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.assets.trace_checks", broken)
        done = compute("one", reasons, Graph.of(build()))
    assert done.assets == ["trace", "geometry"]
    assert [failure.asset for failure in done.failures] == ["geometry"]
    assert "geometry" in stale_of("one")["one"], "it is tried again"


def test_a_run_that_is_only_an_archive_is_restored_where_its_vectors_are_needed_and_nowhere_else(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    place, archives = home.runs_root() / "one", tmp_path / "archives"
    archives.mkdir()
    archive(place, archives / "one.lemmata")
    monkeypatch.setenv("LEMMATA_ARCHIVES", str(archives))
    shutil.rmtree(place)
    assert say(["rerun", "--stale", "one", "--jobs", "1"]) == 0
    assert place.is_dir(), "nothing was computed of it, so its vectors were needed"
    assert stale_of("one") == {"one": set()}

    shutil.rmtree(place)
    assert say(["rerun", "--stale", "one"]) == 0
    assert "Nothing is stale." in capfd.readouterr().out
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "own.py").write_text(OWN)
    monkeypatch.setenv("LEMMATA_METRICS", str(tmp_path / "own"))
    (outcome,) = rerun(["one"], jobs=1)
    assert (set(outcome.computed), outcome.failures) == ({"own", "verdicts", "report"}, ())
    assert not place.exists(), "a new formula reads tables"

    other_kernel(monkeypatch)
    (outcome,) = rerun(["one"], jobs=1)
    assert {"geometry", "own", "report"} <= set(outcome.computed)
    assert place.is_dir()
