"""Nothing is written outside the configured roots, and nobody else can reach what is served."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import caches
from tests.test_executors import one_processor  # noqa: F401  a fixture

ROOT = Path(__file__).parents[1]
# what Python itself opens for writing, makes or renames; the libraries' own files are looked for afterwards
COMMAND = """
import os, sys
written = []
def heard(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        written.append(arguments[0])
    if event in ("os.mkdir", "os.rename") and isinstance(arguments[0], str):
        written.append(os.fspath(arguments[1] if event == "os.rename" else arguments[0]))
sys.addaudithook(heard)
from pipeline.materialize import materialize
outcomes = materialize(["sgdm"], ["trace", "geometry", "convexity_gap"])
print("\\n".join(map(os.path.abspath, written)))
sys.exit(str(outcomes[0].failures) if outcomes[0].failures else 0)
"""


def files(folder: Path) -> dict[str, int]:
    """Every file and directory below, with its time."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_a_computation_writes_into_the_home_and_nowhere_else(home: Path, tmp_path: Path) -> None:
    own = {name: tmp_path / name for name in ("user", "work", "temporary")}
    for path in own.values():
        path.mkdir()
    own["user"].chmod(0o500)
    recorded = files(home / "runs")
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS") if name in os.environ}
    kept |= {"HOME": str(own["user"]), "TMPDIR": str(own["temporary"]), "LEMMATA_HOME": str(home)}
    code = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", COMMAND], env=kept | code, cwd=own["work"], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    for name in ("user", "work"):
        assert files(own[name]) == {}, name
    assert files(home / "runs") == recorded
    assert {path.name for path in home.iterdir()} == {"runs", "tables", "dagster", "cache"}
    assert (home / "cache" / "matplotlib").is_dir()
    written = {Path(path) for path in done.stdout.decode().splitlines()}
    assert any(path.is_relative_to(home / "tables") for path in written)
    allowed = (home, own["temporary"], Path("/dev"), *ROOT.glob("*/__pycache__"), *ROOT.glob("*/*/__pycache__"))
    assert [path for path in written if not any(path.is_relative_to(root) for root in allowed)] == []
    assert not [path for path in own["temporary"].rglob("*") if path.is_file()]


def test_machine_code_goes_into_the_home_where_it_may_not_lie_beside_the_source(
    empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NUMBA_CACHE_DIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, "to be put back")
        monkeypatch.delenv(name)
    caches.keep_at_home()
    assert "NUMBA_CACHE_DIR" not in os.environ
    assert os.environ["MPLCONFIGDIR"] == str(empty_home / "cache" / "matplotlib")
    monkeypatch.setattr(caches, "CODE", tmp_path / "read-only")
    caches.keep_at_home()
    assert os.environ["NUMBA_CACHE_DIR"] == str(empty_home / "cache" / "numba")
    monkeypatch.setenv("MPLCONFIGDIR", "/the/users/own")
    caches.keep_at_home()
    assert os.environ["MPLCONFIGDIR"] == "/the/users/own"


@pytest.mark.usefixtures("one_processor", "empty_home")
def test_a_dask_cluster_of_ours_listens_on_this_machine_alone(tmp_path: Path) -> None:
    from pipeline.dask_executor import local

    with local(tmp_path) as client:
        info = client.scheduler_info(n_workers=-1)
        assert len(info["workers"]) == 1
        listening = [info["address"], *info["workers"], *(worker["nanny"] for worker in info["workers"].values())]
        assert {address.split("/")[2].split(":")[0] for address in listening} == {"127.0.0.1"}
        assert client.dashboard_link.startswith("http://127.0.0.1:")
