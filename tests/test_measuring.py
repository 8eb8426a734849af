"""Metrics that are measured on shared rows find what each finds by itself."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from analysis.measure import measure
from analysis.registry import metrics
from analysis.tables import TableStore
from pipeline import assets, measuring
from pipeline.definitions import build
from pipeline.measuring import KNOWN, measured, together
from pipeline.rerun import rerun
from tests.rerun_homes import few_metrics, go_on, record
from tracer.store import home


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TableStore:
    """Tables of a run of which few metrics were computed."""
    monkeypatch.setenv("LEMMATA_HOME", str(tmp_path))
    few_metrics(monkeypatch)
    record("one")
    rerun(["one"], jobs=1)
    return TableStore(home.tables_root(), "one")


def test_every_metric_is_the_same_alone_and_together(store: TableStore) -> None:
    known = metrics()
    for metric in known.values():
        assets.metric_asset(metric)
    with together([*known, "geometry", "report"]):
        for name, metric in known.items():
            shared, alone = measured(metric, store), measure(metric, store.tables())
            assert_frame_equal(shared.table, alone.table)
            assert_frame_equal(shared.verdicts, alone.verdicts)
            assert_frame_equal(shared.windows, alone.windows)
            assert len(shared.verdicts), name


def test_rows_are_read_once_and_again_when_the_run_has_grown(
    store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    build()
    read: list[int] = []
    honest = measuring.model_rows
    monkeypatch.setattr(measuring, "model_rows", lambda *given: read.append(1) or honest(*given))
    smoothness, gap = KNOWN["smoothness"], KNOWN["convexity_gap"]
    with together(["smoothness", "convexity_gap"]):
        before = measured(smoothness, store).table
        measured(gap, store)
        assert read == [1]
        go_on(home.runs_root() / "one", 6, 9)
        rerun(["one"], jobs=1)
        read.clear()
        after = measured(smoothness, store).table
        assert read == [1]
    assert len(after) > len(before)
    assert_frame_equal(after, measure(smoothness, store.tables()).table)


def test_another_metric_of_the_same_name_and_a_long_run_read_their_own(
    store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    build()
    old = KNOWN["smoothness"]
    new = replace(old, value=old.value + pl.col("x_x"))  # a column that was not read for the record before
    with together(["smoothness", "convexity_gap"]):
        assert_frame_equal(measured(new, store).table, measure(new, store.tables()).table)
    monkeypatch.setattr(measuring, "MOST", 3)
    with together(["smoothness", "convexity_gap"]):
        assert_frame_equal(measured(old, store).table, measure(old, store.tables()).table)


def test_one_metric_alone_shares_nothing(store: TableStore, monkeypatch: pytest.MonkeyPatch) -> None:
    build()
    monkeypatch.setattr(measuring, "model_rows", pytest.fail)
    with together(["smoothness", "verdicts"]):
        assert isinstance(measured(KNOWN["smoothness"], store).table, pl.DataFrame)
