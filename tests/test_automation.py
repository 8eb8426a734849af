"""Unattended: what is new, grown, restored or of another formula is found and computed, and nothing else.

The sensor finds runs; conditions follow from the trace to what is computed from it. Both are asked as the daemons ask.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from pipeline.definitions import build
from pipeline.instance import opened
from pipeline.materialize import materialize
from pipeline.rerun import rerun
from tests.by_hand import flip_in
from tests.rerun_faults import settle
from tests.rerun_homes import BASES, FEW, OWN, go_on, other_kernel, record, stale_of
from tests.test_pipeline_sensor import asked, look
from tracer.store import Trace, home
from tracer.store.archive import archive
from tracer.store.restore import restore

EVERYTHING = BASES | set(FEW)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which two runs have been computed; copied for each test."""
    root = tmp_path_factory.mktemp("automation") / "home"
    with pytest.MonkeyPatch.context() as patch:
        settle(patch, root)
        record("one")
        record("two")
        assert all(outcome.succeeded for outcome in rerun(["one", "two"], jobs=1))
    return root


@pytest.fixture
def watched(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["Watch"]:
    shutil.copytree(made, tmp_path / "home")
    settle(monkeypatch, tmp_path / "home")
    monkeypatch.setenv("LEMMATA_METRICS", str(tmp_path / "own"))
    (tmp_path / "own").mkdir()
    with opened() as instance:
        yield Watch(instance, tmp_path / "own")


class Watch:
    """Sensor and conditions with their cursors, both asked once: they found nothing to do."""

    def __init__(self, instance: dg.DagsterInstance, own: Path) -> None:
        self.instance, self.own = instance, own
        self._sensor = self._conditions = None
        assert self.found() == []
        assert self.requested() == {}

    def found(self) -> list[str | None]:
        """Runs that the sensor computes."""
        result = look(self.instance, self._sensor)
        self._sensor = result.cursor
        return asked(result)

    def requested(self) -> dict[str, set[str]]:
        """Assets that automation computes, by run."""
        definitions, everything = build(), dg.AssetSelection.all()
        result = dg.evaluate_automation_conditions(definitions, self.instance, everything, cursor=self._conditions)
        self._conditions = result.cursor
        found: dict[str, set[str]] = {}
        for key in definitions.resolve_asset_graph().get_all_asset_keys():
            for run_id in result.get_requested_partitions(key):
                found.setdefault(run_id or "all runs", set()).add(key.path[-1])
        return found


def test_of_new_grown_and_restored_runs_what_is_stale_is_computed_and_nothing_else(
    watched: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("new", "restored", "damaged"):
        record(name)
    for name in ("two", "restored"):
        archive(home.runs_root() / name, tmp_path / f"{name}.lemmata")
        shutil.rmtree(home.runs_root() / name)
        restore(tmp_path / f"{name}.lemmata")
    go_on(home.runs_root() / "one", 6, 9)
    flip_in(next((home.runs_root() / "damaged").glob("chunk-*")), "g")

    def refuse(*arguments: object) -> None:
        raise AssertionError("vectors were read")

    with monkeypatch.context() as patch:
        patch.setattr(Trace, "chunks", refuse)
        assert watched.found() == ["damaged", "new", "one", "restored"], "two is what it was before it was archived"
        assert watched.found() == []
    assert watched.requested() == {}, "nothing of a run whose trace was not verified"

    materialize(["damaged", "new", "one", "restored"], ["trace"])
    due = EVERYTHING - {"trace"}
    whole = dict.fromkeys(("new", "restored"), due)
    assert watched.requested() == {**whole, "one": {"geometry"}}, "what grew is followed a stop a tick"
    found = stale_of("new", "one", "restored", "two")
    assert {run_id: names - {"trace"} for run_id, names in found.items()} == {**whole, "one": due, "two": set()}
    rerun(["new", "restored"], jobs=1)
    materialize(["one"], ["geometry"])
    assert watched.requested() == {"one": due - {"geometry", "report"}}
    rerun(["one"], jobs=1)
    assert (watched.found(), watched.requested()) == ([], {})


def test_a_changed_formula_and_a_changed_kernel_are_followed_and_nothing_else(
    watched: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_both(*names: str) -> dict[str, set[str]]:
        return {run_id: set(names) for run_id in ("one", "two")}

    for text in (OWN, OWN.replace("d_d.sqrt()", "2 * d_d.sqrt()")):
        (watched.own / "own.py").write_text(text)
        assert watched.requested() == of_both("own", "verdicts"), "the report follows a tick later"
        rerun(["one", "two"], jobs=1)
        assert watched.requested() == {}
    other_kernel(monkeypatch)
    assert watched.requested() == of_both("geometry")
