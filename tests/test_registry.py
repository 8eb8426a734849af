"""Where metrics come from: built-in files, the user's directories, entry points."""

import os
import textwrap
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import analysis.metrics
from analysis import registry
from analysis.measure import measure
from analysis.registry import broken_metrics, metrics
from tests.problems import descend, saddle
from tests.tables_by_hand import tables

TEN_LINES = '''
    """Curvature along the step."""
    from analysis.columns import Units, d_d, dg_d
    from analysis.metric import Claim, Metric

    metric = Metric(
        name="curvature",
        units=Units(loss=1, distance=-2),
        value=dg_d / d_d,
        claim=Claim(at_least=0),
    )
'''


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("LEMMATA_METRICS", str(tmp_path))
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def test_every_built_in_file_loads_and_is_named_after_its_metric():
    files = Path(analysis.metrics.__file__).parent.glob("[!_]*.py")
    assert list(metrics()) == sorted(file.stem for file in files)
    assert broken_metrics() == {}


def test_a_file_of_ten_lines_becomes_a_metric_with_verdicts(directory):
    write(directory / "curvature.py", TEN_LINES)
    metric = metrics()["curvature"]
    verdict = measure(metric, tables(descend(saddle(), 0.05, 200))).verdicts.row(0, named=True)
    assert (verdict["metric"], verdict["status"]) == ("curvature", "FAILS")
    assert -1 <= verdict["worst"] < 0
    assert broken_metrics() == {}


def test_loading_leaves_no_file_behind_and_does_not_depend_on_the_working_directory(directory, tmp_path, monkeypatch):
    write(directory / "curvature.py", TEN_LINES)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    before = metrics()["curvature"].fingerprint
    monkeypatch.chdir(elsewhere)
    assert metrics()["curvature"].fingerprint == before
    assert sorted(p.name for p in directory.iterdir()) == ["curvature.py", "elsewhere"]


def test_an_edited_file_is_read_anew(directory):
    file = write(directory / "curvature.py", TEN_LINES)
    before = metrics()["curvature"].fingerprint
    write(file, TEN_LINES.replace("dg_d / d_d", "2 * dg_d / d_d"))
    assert metrics()["curvature"].fingerprint != before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("metric = 1 / 0", "ZeroDivisionError"),
        ("metric = (", "SyntaxError"),
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        ("x = 1", "found no such name"),
        ("metric = 7", "found a int"),
        ("import sys; sys.exit(3)", "SystemExit"),
        (TEN_LINES.replace("curvature", "Curvature!"), "lower case letters"),
        (TEN_LINES.replace("dg_d / d_d", "dg_d.sum()"), "row by row"),
        (TEN_LINES.replace("dg_d / d_d", "dg_d.map_batches(abs)"), "calls a Python function"),
        (TEN_LINES.replace("dg_d / d_d", "__import__('polars').all()"), "does not name"),
        (TEN_LINES.replace("dg_d / d_d", "3.0"), "Polars expression"),
        (TEN_LINES.replace("at_least=0", "at_least=0, at_most=1"), "exactly one"),
        (TEN_LINES.replace("claim=", 'pairings=("sideways",), claim='), "unknown pairings"),
    ],
)
def test_a_broken_file_is_set_aside_with_its_error_and_the_others_load(directory, text, said):
    file = write(directory / "broken.py", text)
    write(directory / "good.py", TEN_LINES)
    assert "curvature" in metrics()
    assert list(broken_metrics()) == [str(file)]
    assert said in broken_metrics()[str(file)]


def test_two_metrics_of_one_name_are_an_error_that_names_both_files(directory):
    first, second = write(directory / "a.py", TEN_LINES), write(directory / "b.py", TEN_LINES)
    assert list(broken_metrics()) == [str(second)]
    assert str(first) in broken_metrics()[str(second)]
    assert str(second) in broken_metrics()[str(second)]


def test_a_file_cannot_replace_a_built_in_metric(directory):
    built_in = metrics()["smoothness"].fingerprint
    write(directory / "mine.py", TEN_LINES.replace('"curvature"', '"smoothness"'))
    assert metrics()["smoothness"].fingerprint == built_in
    assert "analysis.metrics.smoothness" in broken_metrics()[str(directory / "mine.py")]


def test_files_with_a_leading_underscore_and_other_files_are_left_alone(directory):
    write(directory / "_draft.py", "1 / 0")
    write(directory / "notes.txt", "1 / 0")
    assert broken_metrics() == {}


def test_several_directories_are_read_in_order(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "m.py", TEN_LINES.replace('"curvature"', f'"curvature_{name}"'))
    monkeypatch.setenv("LEMMATA_METRICS", os.pathsep.join([str(tmp_path / "one"), "", str(tmp_path / "two")]))
    assert list(metrics())[-2:] == ["curvature_one", "curvature_two"]


@pytest.mark.parametrize("listed", ["relative/directory", "/no/such/directory"])
def test_a_directory_that_is_relative_or_missing_is_an_entry(monkeypatch, listed):
    monkeypatch.setenv("LEMMATA_METRICS", listed)
    assert "absolute path" in broken_metrics()[listed]
    assert "smoothness" in metrics()


def test_installed_packages_offer_metrics_by_entry_points(directory, monkeypatch):
    write(directory / "_offered.py", TEN_LINES.replace("metric = Metric", "mine = metric = Metric"))
    monkeypatch.syspath_prepend(str(directory))
    offered = (
        EntryPoint("object", "_offered:mine", "lemmata.metrics"),
        EntryPoint("absent", "no_such_module", "lemmata.metrics"),
    )
    monkeypatch.setattr(registry, "entry_points", lambda group: offered if group == "lemmata.metrics" else ())
    assert "curvature" in metrics()
    assert "ModuleNotFoundError" in broken_metrics()["entry point absent = no_such_module"]
