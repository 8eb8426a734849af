"""The README tells the truth: its Python runs, its commands and files exist."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


def commands() -> list[list[str]]:
    return [shlex.split(line, comments=True) for block in blocks("sh") for line in block.splitlines() if line.strip()]


def run(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"LEMMATA_HOME": str(home), "OMP_NUM_THREADS": "1", "COLUMNS": "200", "TERM": "dumb"},
        check=False,
        timeout=300,
    )


def lemmata(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    return run(
        "-c", "import sys; from pipeline.commands import main; sys.argv[0] = 'lemmata'; main()", *arguments, home=home
    )


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    assert len(blocks("python")) == 3
    result = run("-W", "error", "-c", "\n".join(blocks("python")), home=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "convex at every step" in result.stdout
    assert (tmp_path / "runs" / "digits").is_dir()


def test_the_metric_of_the_readme_is_the_example() -> None:
    example = (ROOT / "examples" / "metrics" / "gradient_cosine.py").read_text(encoding="utf-8")

    def plain(code: str) -> str:
        return re.sub(r"  #.*", "", code[code.index("from analysis.columns") :])

    assert plain(blocks("python")[2]) == plain(example)


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_a_command_of_the_readme_exists(command: list[str], tmp_path: Path) -> None:
    program, *arguments = command
    if program == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    elif program == "export":
        assert Path(arguments[0].partition("=")[2].replace("$PWD", str(ROOT))).is_dir()
    else:
        assert program == "lemmata"
        shown = lemmata(arguments[0], "--help", home=tmp_path)
        assert shown.returncode == 0, shown.stderr
        assert all(option in shown.stdout for option in arguments if option.startswith("--"))


def test_every_file_the_readme_points_to_is_there() -> None:
    targets = re.findall(r"\]\(((?!https?:)[^)#]+)[^)]*\)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_pictures_are_small_and_shown() -> None:
    pages = README + (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for picture in (ROOT / "docs" / "picture.svg", *(ROOT / "docs" / "screenshots").glob("*.png")):
        assert picture.stat().st_size <= 200_000
        assert picture.name in pages


def test_every_file_the_architecture_page_points_to_is_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\(((?!https?:)[^)#]+)[^)]*\)", page)
    assert [target for target in targets if not (ROOT / "docs" / target).exists()] == []
