"""A page that is put together from kept parts is the page that would be written anew."""

from pathlib import Path
from typing import Any

import pytest

from pipeline import report_content
from pipeline.rerun import rerun
from tests.rerun_homes import OWN, few_metrics, record
from tracer.store import home


def test_a_new_metric_makes_one_part_of_the_page_and_the_page_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setenv("LEMMATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LEMMATA_METRICS", str(own))
    few_metrics(monkeypatch)
    record("a")
    made: list[str] = []
    section = report_content.section

    def counted(metric: Any, *rest: Any) -> Any:
        made.append(metric.name)
        return section(metric, *rest)

    monkeypatch.setattr(report_content, "section", counted)
    rerun(["a"], jobs=1)
    assert len(made) == 3
    made.clear()
    (own / "own.py").write_text(OWN)
    rerun(["a"], jobs=1)
    assert made == ["own"]
    report = home.tables_root() / "a" / "report.html"
    kept = report.read_bytes()
    for part in ("_sections", "_checks", "_plates"):
        (report.parent / "figures" / f"{part}.json").unlink()
    report.unlink()
    rerun(["a"], jobs=1)
    assert len(made) == 5
    assert report.read_bytes() == kept
