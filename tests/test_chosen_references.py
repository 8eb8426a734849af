"""Reference points that a user chooses for a run: on the command line, kept, and used whoever computes."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import pipeline.materialize
from analysis.tables import TableStore
from pipeline.materialize import materialize
from tests.conftest import Lemmata
from tracer.store import Trace


@pytest.fixture
def a_few_assets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command computes what shows reference points, and not the rest."""
    few = ["trace", "geometry", "reference_slope"]
    monkeypatch.setattr(pipeline.materialize, "materialize_with_progress", lambda _, names, __: materialize(names, few))


def pairings(home: Path) -> set[str]:
    verdicts = TableStore(home / "tables", "sgdm").scan("verdicts/reference_slope").collect()
    return set(verdicts["pairing"])


def test_another_runs_end_and_a_given_checkpoint_are_references_from_then_on(
    home: Path, lemmata: Lemmata, a_few_assets: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = Trace(home / "runs" / "sgdm")
    checkpoint = np.full(trace.parameters, 0.5, np.float32)
    np.save(home / "half.npy", checkpoint)
    monkeypatch.chdir(home)
    code, _, stderr = lemmata("materialize", "sgdm", "--references", "run:adamw,point:half.npy")
    assert code == 0, stderr
    assert {"reference:run:adamw", "reference:point:half", "reference:last", "reference:random"} <= pairings(home)
    geometry = TableStore(home / "tables", "sgdm").tables().geometry
    row = geometry.filter((pl.col("pairing") == "reference:point:half") & (pl.col("step") == 7)).collect()
    (x,) = next(trace.rows("x", 7, 8))
    assert row["d_d"].item() == pytest.approx(float(np.sum((x.astype(float) - checkpoint) ** 2)), rel=1e-12)
    monkeypatch.chdir(home.parent)
    materialize(["sgdm"], ["trace", "geometry", "reference_slope"])
    assert "reference:point:half" in pairings(home), "kept for whoever computes next"
    assert lemmata("materialize", "sgdm", "--references", "")[0] == 0
    assert "reference:point:half" not in pairings(home)


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("last", "expected run:ID or point:FILE.npy"),
        ("run:nobody", "nobody"),
        ("point:missing.npy", "not readable as a .npy file"),
        ("point:a/one.npy,point:b/one.npy", "two of them have one name"),
    ],
)
def test_a_point_that_cannot_be_is_refused_before_anything_is_computed(
    home: Path, lemmata: Lemmata, wanted: str, says: str
) -> None:
    code, _, stderr = lemmata("materialize", "sgdm", "--references", wanted)
    assert code != 0
    assert says in stderr
    assert not (home / "tables" / "sgdm").exists()


def test_references_and_a_metric_from_tables_exclude_each_other(home: Path, lemmata: Lemmata) -> None:
    code, _, stderr = lemmata("materialize", "sgdm", "--references", "run:adamw", "--metric", "reference_slope")
    assert code == 2
    assert "needs the recorded vectors" in stderr
