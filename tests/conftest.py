"""Shared by the tests of the pipeline: a home of their own, and real runs recorded once a session."""

import os

# before torch is imported: each of several test processes on few cores would spin as many threads as there are cores
os.environ.setdefault("OMP_NUM_THREADS", "1")

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import gettempdir

import pytest

from tests import real_path

Lemmata = Callable[..., tuple[int, str, str]]
VARIABLES = (
    "LEMMATA_HOME",
    "LEMMATA_METRICS",
    "LEMMATA_EXECUTOR",
    "LEMMATA_POSTGRES",
    "LEMMATA_TABLES",
    "LEMMATA_ARCHIVES",
    "DAGSTER_HOME",
)
# one for all the homes that tests make: finding the fonts takes seconds
os.environ.setdefault("MPLCONFIGDIR", str(Path(gettempdir()) / f"lemmata-tests-matplotlib-{os.getuid()}"))

# half a minute and more; begun first, so that several processes end together
LONGEST = (
    *("test_backfill", "test_browser", "test_pipeline_assets", "test_commands", "test_executors", "test_automation"),
    *("test_certify", "test_rerun", "test_benchmarks", "test_faults", "test_store", "test_old_files"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with few tests, which take longest, do not come last."""
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.fixture(scope="session")
def recorded_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``runs`` directory with two recorded runs, ``sgdm`` and ``adamw``; copy it, do not write into it."""
    from tracer.workloads import train

    root = tmp_path_factory.mktemp("recorded") / "runs"
    root.mkdir()
    for optimizer in ("sgdm", "adamw"):
        train("logistic", root / optimizer, optimizer=optimizer, steps=60)
    return root


@pytest.fixture(scope="module")
def module_home(tmp_path_factory: pytest.TempPathFactory, recorded_runs: Path) -> Iterator[Path]:
    """A home with the two recorded runs, shared by the tests of one module; $LEMMATA_HOME names it."""
    with pytest.MonkeyPatch.context() as environment:
        yield _home(environment, tmp_path_factory.mktemp("home"), recorded_runs)


@pytest.fixture
def home(tmp_path: Path, recorded_runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with the two recorded runs, for one test; $LEMMATA_HOME names it."""
    return _home(monkeypatch, tmp_path / "home", recorded_runs)


@pytest.fixture
def recorded_run(home: Path) -> Path:
    """Directory of one recorded run in the test's own home."""
    return home / "runs" / "sgdm"


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that is not there yet."""
    return _environment(monkeypatch, tmp_path / "home")


def _home(environment: pytest.MonkeyPatch, path: Path, runs: Path) -> Path:
    shutil.copytree(runs, path / "runs")
    return _environment(environment, path)


def _environment(environment: pytest.MonkeyPatch, path: Path) -> Path:
    for name in VARIABLES:
        environment.delenv(name, raising=False)
    environment.setenv("LEMMATA_HOME", str(path))
    return path


@pytest.fixture
def lemmata(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Lemmata:
    """Run the command in this process; returns exit code, stdout, stderr."""

    from pipeline import commands

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lemmata", *arguments])
        capfd.readouterr()
        code = 0
        try:
            commands.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capfd.readouterr()

    return run


@pytest.fixture(scope="module", params=["by hand", "through files"])
def path_taken(request, tmp_path_factory):
    """Known answers twice: on tables made by hand, and on those of a run that went through tracer, files, geometry."""
    folder = tmp_path_factory.mktemp("walks") if request.param == "through files" else None
    with real_path.taken(folder):
        yield
