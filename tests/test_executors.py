"""The same definitions in this process, in several and on a dask cluster: one setting, the same bytes."""

import importlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from distributed import Client, LocalCluster, Scheduler, SpecCluster, Worker

from analysis import geometry
from pipeline import dask_executor, workers
from pipeline.executors import executor, sharers
from pipeline.materialize import materialize
from tracer.errors import UsageError
from tracer.store import home


@pytest.fixture
def one_processor() -> Iterator[None]:
    """A cluster of as many processes as there are processors is then one process, and cheap."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a scheduler with one worker, both in this process."""
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as cluster:
        monkeypatch.setenv("LEMMATA_EXECUTOR", f"dask:{cluster.scheduler_address}")
        yield cluster.scheduler_address


def compute(*assets: str) -> dict[str, bytes]:
    """What the tables of a run are when these assets are computed; none is left."""
    heard: list[int] = []
    (outcome,) = materialize(["sgdm"], assets, lambda run, done, of: heard.append(done))
    assert (outcome.failures, outcome.computed, heard) == ((), assets, [*range(1, len(assets) + 1)])
    root = home.tables_root()
    found = {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.parquet"))}
    shutil.rmtree(root)
    return found


@pytest.mark.usefixtures("one_processor")
def test_the_same_bytes_come_from_every_executor(recorded_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("geometry", "smoothness", "verdicts")
    expected = compute(*asked)
    assert {f"sgdm/{name}.parquet" for name in ("geometry", "path", "metrics/smoothness", "verdicts")} < expected.keys()
    for name in ("dask", "multiprocess"):
        monkeypatch.setenv("LEMMATA_EXECUTOR", name)
        assert compute(*asked) == expected
    assert not list(home.dagster_home().glob("dask-*"))


@pytest.mark.usefixtures("scheduler")
def test_on_dask_nothing_is_computed_downstream_of_damage(recorded_run: Path) -> None:
    chunk = recorded_run / "chunk-000000.h5"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    (outcome,) = materialize(["sgdm"], ["trace", "geometry", "convexity_gap"])
    assert ([failure.asset for failure in outcome.failures], outcome.computed) == (["trace"], ())
    assert str(chunk) in outcome.failures[0].message
    assert not home.tables_root().exists()


def test_the_executor_is_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEMMATA_EXECUTOR", raising=False)
    assert executor() is dg.in_process_executor
    for name, kind in (("multiprocess", "multiprocess"), ("dask", "dask"), ("dask:tcp://10.0.0.5:8786", "dask")):
        monkeypatch.setenv("LEMMATA_EXECUTOR", name)
        assert executor().name == kind
    monkeypatch.setenv("LEMMATA_EXECUTOR", "dagster:in_process_executor")
    assert executor() is dg.in_process_executor
    for wrong in ("no_such_thing", "dagster:asset", "no.such.module:thing", "dask:8786"):
        monkeypatch.setenv("LEMMATA_EXECUTOR", wrong)
        with pytest.raises(UsageError, match=wrong):
            executor()


def test_dask_that_is_not_installed_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEMMATA_EXECUTOR", "dask")
    monkeypatch.setitem(importlib.sys.modules, "dagster_dask", None)
    with pytest.raises(UsageError, match=r"expected the extra dask.*pip install 'lemmata\[dask\]'"):
        executor()


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_executor, "PATIENCE", 0.2)
    nobody = dask_executor.connected("tcp://127.0.0.1:9")
    with pytest.raises(UsageError, match=r"dask:tcp://127\.0\.0\.1:9: expected a dask scheduler"), nobody:
        pass


def test_the_machines_of_a_cluster_share_a_big_run(recorded_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = compute("geometry")
    places = {name: {"cls": Worker, "options": {"host": name}} for name in ("127.0.0.1", "127.0.0.2")}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}}
    monkeypatch.setattr(workers, "LARGE", 0)
    asked: list[int] = []
    gathered = geometry.gathered
    monkeypatch.setattr(geometry, "gathered", lambda *how: asked.append(how[2].count) or gathered(*how))
    with SpecCluster(places, scheduler) as cluster, Client(cluster) as client:
        client.wait_for_workers(2)
        monkeypatch.setenv("LEMMATA_EXECUTOR", f"dask:{cluster.scheduler_address}")
        assert compute("geometry") == expected
    assert asked == [2]


def test_small_runs_and_other_executors_ask_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    large = 1 << 40
    for name, size in (("multiprocess", large), ("dask", large), ("dask:tcp://127.0.0.1:9", 1000)):
        monkeypatch.setenv("LEMMATA_EXECUTOR", name)
        with sharers(size) as found:
            assert found is None
