"""``lemmata doctor``: each mistake is made here, and found."""

import json
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from pipeline.abandoned import OWNER, owner
from pipeline.instance import opened
from pipeline.terminal import doctor, doctor_pipeline
from pipeline.terminal.doctor import dagster_family, disk, file_system, servers, wanting
from pipeline.terminal.findings import Finding
from tests.conftest import Lemmata

Usage = namedtuple("Usage", "total used free")


def levels(findings: list[Finding], about: str) -> list[str]:
    return [finding.level for finding in findings if finding.about == about]


def said(findings: list[Finding], about: str) -> str:
    return " ".join(f"{finding.says} {finding.do}" for finding in findings if finding.about == about)


def test_all_is_well_in_a_new_home(empty_home: Path, lemmata: Lemmata) -> None:
    code, out, err = lemmata("doctor", "--json")
    found = [Finding(**each) for each in json.loads(out)]
    assert (code, err) == (0, "")
    assert {each.level for each in found if each.about not in ("torch", "disk", "extras", "server")} == {"ok"}
    assert {"extras", "Dagster family", "home", "disk", "runs", "metrics", "tables"} <= {each.about for each in found}
    assert not empty_home.exists(), "the doctor changed something"


def test_an_error_is_an_exit_code_and_says_what_to_do(
    empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lemmata: Lemmata
) -> None:
    (tmp_path / "bent.py").write_text("import no_such_package_anywhere", encoding="utf-8")
    monkeypatch.setenv("LEMMATA_METRICS", str(tmp_path))
    code, out, _ = lemmata("doctor")
    assert code == 1
    assert str(tmp_path / "bent.py") in out
    assert "no_such_package_anywhere" in out
    assert "→ put the file right" in out


@pytest.mark.parametrize(
    ("versions", "level"),
    [
        ({"dagster": "1.13.27", "dagster-webserver": "1.13.27", "dagster-postgres": "0.29.27"}, "ok"),
        ({"dagster": "1.13.27", "dagster-webserver": "1.13.26"}, "error"),
        ({"dagster": "1.13.27", "dagster-dask": "0.29.26"}, "error"),
        ({"dagster": "1.13.27", "dagster-dask": "0.28.27"}, "error"),
    ],
)
def test_a_dagster_family_of_several_ages_is_an_error(versions: dict[str, str], level: str) -> None:
    assert [finding.level for finding in dagster_family(versions)] == [level]


def test_a_missing_extra_and_a_wrong_version_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = [
        "numpy>=1.26",
        'lemmata[analysis]; extra == "pipeline"',
        'no-such-package>=1; extra == "analysis"',
        'dagster==0.1; extra == "pipeline"',
    ]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: needs)
    assert wanting("analysis") == ["no-such-package"]
    assert wanting("pipeline")[0] == "no-such-package"
    assert "dagster ==0.1 wanted" in wanting("pipeline")[1]
    found = list(doctor.packages())
    assert "dagster ==0.1 wanted" in said(found, "extra pipeline")
    assert "pip install 'lemmata[pipeline]'" in said(found, "extras")


@pytest.mark.parametrize(("free", "level"), [(10 << 40, "ok"), (2 << 30, "warning"), (1 << 20, "error")])
def test_a_disk_that_is_nearly_full(free: int, level: str) -> None:
    assert disk(Path("/somewhere"), Usage(20 << 40, 0, free)).level == level  # type: ignore[arg-type]


def test_a_network_file_system_is_told_from_a_local_one(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/share {tmp_path}/far nfs4 rw 0 0\n", encoding="utf-8")
    (tmp_path / "far" / "home").mkdir(parents=True)
    assert file_system(tmp_path / "far" / "home", mounts) == "nfs4"
    assert file_system(tmp_path, mounts) == "ext4"
    assert file_system(tmp_path, tmp_path / "not there") == ""


def test_a_home_that_cannot_be_made_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEMMATA_HOME", "/proc/nowhere")  # nobody can write there, not even root
    (found,) = doctor.places()
    assert (found.level, "LEMMATA_HOME" in found.do) == ("error", True)


def test_a_server_that_others_can_reach(tmp_path: Path) -> None:
    lines = {
        "11": ["python", "-m", "dagster_webserver", "--host", "0.0.0.0"],
        "12": ["/usr/bin/dagster-webserver", "-h", "127.0.0.1"],
        "13": ["grep", "dagster_webserver --host 0.0.0.0"],
    }
    for process, words in lines.items():
        (tmp_path / process).mkdir()
        (tmp_path / process / "cmdline").write_bytes("\0".join(words).encode() + b"\0")
    assert [(found.level, found.says.split()[1]) for found in servers(tmp_path)] == [("error", "11"), ("ok", "12")]


def test_damaged_and_renamed_runs_and_what_killed_processes_left(home: Path) -> None:
    (home / "runs" / "adamw" / "manifest.json").write_text("{}", encoding="utf-8")
    (home / "runs" / "sgdm").rename(home / "runs" / "renamed")
    (home / "tables" / "sgdm").mkdir(parents=True)
    (home / "tables" / "sgdm" / ".geometry.parquet.17.aside").touch()
    found = [*doctor.recorded(), *doctor.killed()]
    assert levels(found, "runs") == ["error", "error", "ok"]
    assert "lemmata verify adamw" in said(found, "runs")
    assert f"mv {home / 'runs' / 'renamed'} {home / 'runs' / 'sgdm'}" in said(found, "runs")
    assert ".geometry.parquet.17.aside" in said(found, "leftovers")


ROOT = Path(__file__).resolve().parents[1]
DIE = "import os, sys; from tests.recorded_to_death import steps; run = steps(sys.argv[1]); "
DIE += "[next(run) for _ in range(3)]; os._exit(9)"


def test_a_run_that_was_never_closed(empty_home: Path) -> None:
    path = empty_home / "runs" / "killed"
    path.parent.mkdir(parents=True)
    done = subprocess.run([sys.executable, "-c", DIE, str(path)], check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 9, done.stderr
    found = list(doctor.recorded())
    assert levels(found, "unfinished runs") == ["warning"]
    assert "killed" in said(found, "unfinished runs")


def test_runs_that_are_not_computed_and_verdicts_of_other_formulas(home: Path) -> None:
    found = doctor_pipeline.examine_pipeline()
    assert levels(found, "tables") == ["warning"]
    assert "2 runs are not computed: adamw, sgdm" in said(found, "tables")


def test_a_dagster_home_of_somebody_else(empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text("local_artifact_storage: {}", encoding="utf-8")
    found = doctor_pipeline.examine_pipeline()
    assert levels(found, "DAGSTER_HOME") == ["warning"]
    assert levels(found, "telemetry") == ["warning"]
    monkeypatch.setenv("DAGSTER_HOME", "relative")
    assert levels(doctor_pipeline.examine_pipeline(), "DAGSTER_HOME") == ["error"]


def test_abandoned_runs_are_named_and_left_as_they_are(empty_home: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    tags = {OWNER: f"{owner()[OWNER].rpartition(':')[0]}:{dead.pid}"}
    with opened() as instance:
        instance.add_run(dg.DagsterRun("job", run_id="killed", status=dg.DagsterRunStatus.STARTED, tags=tags))
    found = doctor_pipeline.examine_pipeline()
    assert levels(found, "abandoned runs") == ["warning"]
    assert "killed" in said(found, "abandoned runs")
    with dg.DagsterInstance.from_config(str(empty_home / "dagster")) as instance:
        assert instance.get_runs()[0].status == dg.DagsterRunStatus.STARTED


def test_a_damaged_instance_is_an_error(empty_home: Path) -> None:
    with opened():
        pass
    database = empty_home / "dagster" / "history" / "runs.db"
    assert database.is_file()
    database.write_bytes(b"this is no database" * 100)
    found = doctor_pipeline.examine_pipeline()
    assert levels(found, "Dagster instance") == ["error"]


def test_the_executor_that_is_not_there(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEMMATA_EXECUTOR", "no_such_module:executor")
    assert levels(list(doctor_pipeline._settings()), "executor") == ["error"]


def test_outdated_tables_say_of_which_runs_and_why() -> None:
    runs = pl.DataFrame({"run_id": ["a", "b"], "state": ["outdated", "current"], "why": ["steps", ""]})
    (found,) = doctor_pipeline._behind(runs)
    assert (found.level, "1 runs are outdated: a. steps" in found.says) == ("warning", True)
