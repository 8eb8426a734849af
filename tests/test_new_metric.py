"""``lemmata new-metric``: what it writes works at once; its page in docs is carried out here."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.measure import measure
from analysis.registry import broken_metrics, metrics
from pipeline.assets import store
from pipeline.materialize import materialize
from tests.conftest import Lemmata

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "new-metric.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def run_pytest(*paths: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, *map(str, paths)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=paths[0].parent, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_the_page_of_the_docs_works(
    home: Path,
    lemmata: Lemmata,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (home / "runs" / "adamw").rename(home / "runs" / "first-of-all")
    commands = [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]
    assert [c[:2] for c in commands[:2]] == [["lemmata", "record"], ["lemmata", "materialize"]]
    materialize(["sgdm"], ["trace", "geometry"])  # stands for both: what the rest of the page needs
    new, export, test, compute, show = commands[2:]

    code, out, _ = lemmata(*new[1:])
    into = tmp_path / "my-metrics"
    metric, written = into / "gradient_change.py", into / "tests" / "test_gradient_change.py"
    assert (code, out.splitlines()[:2]) == (0, [str(metric), str(written)])
    assert str(ROOT / "docs" / "new-metric.md") in out
    assert f"export LEMMATA_METRICS={into}" in out
    assert export[1] == "LEMMATA_METRICS=$PWD/my-metrics"
    monkeypatch.setenv("LEMMATA_METRICS", str(into))
    assert broken_metrics() == {}
    of_template = metrics()["gradient_change"]
    assert measure(of_template, store("sgdm").tables()).table["value"].is_finite().any()

    first, answer = blocks("python")
    metric.write_text(first, encoding="utf-8")
    text = written.read_text(encoding="utf-8")
    old = re.search(r"def test_known_answer.*?\n\n\n", text, flags=re.DOTALL)
    assert old is not None
    assert answer.splitlines()[0] in old[0]
    written.write_text(text.replace(old[0], f"{answer}\n\n"), encoding="utf-8")
    assert (tmp_path / test[-1]) == written.parent
    assert lemmata("new-metric", "untouched", "--dir", str(into))[0] == 0
    run_pytest(written.parent)

    code, _, err = lemmata(*(word.replace("first", "sgdm") for word in compute[1:]))
    assert code == 0, err
    assert "gradient_change" in lemmata(*(word.replace("first", "sgdm") for word in show[1:]), "--all")[1]


def test_nothing_is_overwritten(empty_home: Path, lemmata: Lemmata, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("precious", encoding="utf-8")
    code, _, err = lemmata("new-metric", "mine", "--dir", str(tmp_path))
    assert (code, "not overwritten" in err) == (2, True)
    assert (tmp_path / "mine.py").read_text(encoding="utf-8") == "precious"
    assert not (tmp_path / "tests").exists()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Capital", "lower case"),
        ("../up", "lower case"),
        ("class", "reserved keyword"),
        ("dict", "reserved keyword"),
        ("verdicts", "of this name"),
        ("smoothness", "of this name"),
        ("dg_dg", "of this name"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(
    name: str,
    says: str,
    empty_home: Path,
    lemmata: Lemmata,
    tmp_path: Path,
) -> None:
    code, _, err = lemmata("new-metric", name, "--dir", str(tmp_path / "new"))
    assert (code, says in err) == (2, True), err
    assert not (tmp_path / "new").exists()


def test_without_a_directory_it_says_how_to_name_one(empty_home: Path, lemmata: Lemmata) -> None:
    code, _, err = lemmata("new-metric", "mine")
    assert (code, "export LEMMATA_METRICS" in err) == (2, True)


def test_the_listed_directory_is_taken(
    empty_home: Path,
    lemmata: Lemmata,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LEMMATA_METRICS", str(tmp_path))
    code, out, _ = lemmata("new-metric", "mine")
    assert (code, "export" in out) == (0, False)
    assert "mine" in metrics()
