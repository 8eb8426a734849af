"""Events of a rerun are written many at a time, and what was done before an error is reported all the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.event_log import sql_event_log
from dagster._serdes import serialize_value

from pipeline import reporting
from pipeline.instance import opened


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """A home of its own."""
    monkeypatch.setenv("LEMMATA_HOME", str(tmp_path))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    with opened() as made:
        yield made


def _events(count: int) -> list[Any]:
    return [dg.AssetMaterialization("thing", partition=f"p{i}", metadata={"number": i}) for i in range(count)]


def _reported(instance: dg.DagsterInstance) -> list[str]:
    records = instance.fetch_materializations(dg.AssetKey("thing"), limit=1000).records
    return sorted(str(record.partition_key) for record in records)


def test_a_hundred_events_take_few_connections(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    storage: Any = type(instance.event_log_storage)
    opening: list[str] = []
    connect = storage._connect

    @contextmanager
    def counted(self: Any, shard: str) -> Iterator[Any]:
        opening.append(shard)
        with connect(self, shard) as connection:
            yield connection

    monkeypatch.setattr(storage, "_connect", counted)
    reporting.report(instance, lambda: iter([_events(100)]))
    assert len(opening) < 40  # each event by itself takes two
    assert len(_reported(instance)) == 100


def test_what_was_done_before_an_error_is_reported(instance: dg.DagsterInstance) -> None:
    def done() -> Iterator[list[Any]]:
        yield _events(3)
        raise RuntimeError("the next run could not be computed")

    reporting.report(instance, done)
    assert _reported(instance) == ["p0", "p1", "p2"]
    assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.FAILURE]


def test_the_storage_is_as_before_afterwards(instance: dg.DagsterInstance) -> None:
    before = set(vars(instance.event_log_storage))
    reporting.report(instance, lambda: iter([_events(1), _events(2)]))
    assert set(vars(instance.event_log_storage)) <= before


def test_an_event_that_is_written_out_once_is_the_text_that_dagster_writes(instance: dg.DagsterInstance) -> None:
    reporting.report(instance, lambda: iter([_events(3)]))
    records = instance.fetch_materializations(dg.AssetKey("thing"), limit=3).records
    written = reporting.written_once()
    for record in [*records, *records[::-1]]:
        for _ in range(2):
            assert written(record) == serialize_value(record)
            assert written(record.event_log_entry) == serialize_value(record.event_log_entry)
    assert sql_event_log.serialize_value is serialize_value, "what was replaced is back"


def test_columns_that_hold_an_event_take_it_as_it_was_written_once(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[str] = []
    monkeypatch.setattr(reporting, "serialize_value", lambda value: texts.append("") or serialize_value(value))
    reporting.report(instance, lambda: iter([_events(50)]))
    assert len(texts) == 50
    [last] = instance.get_asset_records([dg.AssetKey("thing")])
    assert last.asset_entry.last_materialization is not None
    assert last.asset_entry.last_materialization.get_dagster_event().partition == "p49"
