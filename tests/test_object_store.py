"""Tables and archives on an object store: a real S3 client against a server on 127.0.0.1."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from moto.server import ThreadedMotoServer

from analysis.remote import Aside, local
from analysis.tables import TableStore
from pipeline import sensor
from pipeline.archives import here, known
from pipeline.instance import opened
from pipeline.materialize import materialize
from pipeline.terminal.show import verdicts_of
from tracer.errors import FormatError, UsageError
from tracer.store import Trace
from tracer.store import home as homes
from tracer.store.archive import archive

CHOSEN = ["geometry", "convexity_gap", "verdicts", "report"]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    served = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    served.start()
    host, port = served.get_host_and_port()
    yield f"http://{host}:{port}"
    served.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """A bucket of this test's own, as a directory; what AWS's clients read from the environment names the server."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "of-this-test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    from upath import UPath

    found = UPath(f"s3://{abs(hash(request.node.name))}", use_listings_cache=False)
    found.fs.mkdir(found.path)
    return found


def contents(root: Any) -> dict[str, bytes]:
    """Every Parquet file below a directory, here or there, by its last two names."""
    return {"/".join(path.parts[-2:]): path.read_bytes() for path in root.rglob("*.parquet")}


def test_the_tables_on_a_store_are_the_same_bytes(home: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert materialize(["sgdm"], CHOSEN)[0].failures == ()
    here = contents(home / "tables")
    shutil.rmtree(home / "tables")
    monkeypatch.setenv("LEMMATA_TABLES", str(bucket / "tables"))
    assert materialize(["sgdm"], CHOSEN)[0].failures == ()
    there = contents(bucket / "tables")
    assert {"sgdm/geometry.parquet", "metrics/convexity_gap.parquet", "sgdm/verdicts.parquet"} < here.keys()
    assert there == here
    assert not (home / "tables").exists()
    assert not list((home / "scratch").iterdir())
    rows = verdicts_of(homes.tables_root(), "sgdm")
    assert rows is not None
    assert {row["metric"] for row in rows} == {"convexity_gap"}
    assert (bucket / "tables" / "sgdm" / "report.html").is_file()


def test_a_table_is_fetched_once_and_again_when_it_changed(empty_home: Path, bucket: Any) -> None:
    store = TableStore(bucket / "tables", "run")
    path = store.write("steps", pl.DataFrame({"step": [1, 2]}))
    first = local(path)
    assert store.scan("steps").collect()["step"].to_list() == [1, 2]
    fetched = first.stat().st_mtime_ns
    assert local(path) == first
    assert first.stat().st_mtime_ns == fetched
    earlier = store.scan("steps")
    store.write("steps", pl.LazyFrame({"step": [3]}))
    assert store.scan("steps").collect()["step"].to_list() == [3]
    assert earlier.collect()["step"].to_list() == [1, 2]


def test_what_was_raised_while_writing_leaves_nothing(empty_home: Path, bucket: Any) -> None:
    target = bucket / "tables" / "page.html"

    def write(text: str) -> None:
        with Aside(target) as aside:
            aside.write_text(text)
            if text == "half":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write("half")
    assert not target.exists()
    write("whole")
    with pytest.raises(KeyboardInterrupt):
        write("half")
    assert target.read_text() == "whole"
    assert not list((empty_home / "scratch").iterdir())


def test_a_table_that_is_not_there_is_named_by_its_url(empty_home: Path, bucket: Any) -> None:
    with pytest.raises(FormatError, match=r"s3://.*geometry\.parquet: this table has not been computed"):
        TableStore(bucket, "run").scan("geometry")


def test_an_archived_run_is_a_partition_and_comes_back_when_it_is_computed(
    home: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = Trace(home / "runs" / "sgdm").digest
    archive(home / "runs" / "sgdm", str(bucket / "old" / "sgdm.lemmata"))
    (bucket / "old" / "..lemmata").write_text("no run is called that")
    shutil.rmtree(home / "runs" / "sgdm")
    assert known() == ["adamw"]
    monkeypatch.setenv("LEMMATA_ARCHIVES", str(bucket / "old"))
    assert known() == ["adamw", "sgdm"]
    with opened() as instance:
        looked = sensor.recorded_runs(dg.build_sensor_context(instance))
        assert looked.dynamic_partitions_requests[0].partition_keys == ["adamw", "sgdm"]
        assert [request.partition_key for request in looked.run_requests] == ["adamw", "sgdm"]
        again = sensor.recorded_runs(dg.build_sensor_context(instance, cursor=looked.cursor))
        assert again.run_requests == []
    (outcome,) = materialize(["sgdm"], ["trace"])
    assert outcome.failures == ()
    assert Trace(home / "runs" / "sgdm").digest == digest
    with opened() as instance:
        after = sensor.recorded_runs(dg.build_sensor_context(instance, cursor=looked.cursor))
        assert after.run_requests == []


def test_an_archive_under_the_name_of_another_run_is_refused(
    home: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive(home / "runs" / "sgdm", str(bucket / "other.lemmata"))
    monkeypatch.setenv("LEMMATA_ARCHIVES", str(bucket))
    with pytest.raises(FormatError, match=r"other\.lemmata: this is the archive of 'sgdm'"):
        here("other")
    assert not (home / "runs" / "other").exists()


def test_a_url_that_is_no_object_store_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEMMATA_TABLES", "sftp://host/tables")
    with pytest.raises(UsageError, match=r"LEMMATA_TABLES=sftp://host/tables: expected .*s3.*Mount it"):
        homes.tables_root()


def test_the_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEMMATA_TABLES", "s3://bucket/tables")
    monkeypatch.setitem(sys.modules, "upath", None)
    with pytest.raises(UsageError, match=r"expected the extra s3.*pip install 'lemmata\[s3\]'"):
        homes.tables_root()
