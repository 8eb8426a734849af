"""The command line, as a user types it."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline
from pipeline import commands
from tests.conftest import Lemmata


def test_version_and_help_of_every_command(lemmata: Lemmata) -> None:
    code, out, _ = lemmata("--version")
    assert code == 0
    assert out.startswith("lemmata ")
    names = [command.name or command.callback.__name__ for command in commands.app.registered_commands]
    assert {"demo", "record", "replay", "ls", "show", "verify", "materialize", "report", "ui"} <= set(names)
    for name in names:
        code, out, _ = lemmata(name, "--help")
        assert code == 0
        assert "Example: lemmata" in out


def test_a_recorded_run_is_listed_shown_and_verified(empty_home: Path, lemmata: Lemmata) -> None:
    assert "No runs" in lemmata("ls")[1]
    code, out, _ = lemmata("record", "logistic", "--optimizer", "adamw", "--steps", "5", "--run", "first")
    assert (code, out.splitlines()[0]) == (0, str(empty_home / "runs" / "first"))
    assert "first" in lemmata("ls")[1]
    (listed,) = json.loads(lemmata("ls", "--json")[1])
    assert listed["run_id"] == "first"
    assert (listed["status"], listed["last_step"], listed["parameters"]) == ("closed", 5, 31)
    code, out, _ = lemmata("show", "first")
    assert code == 0
    assert "closed: finished" in out
    assert "AdamW" in out
    assert "look_back" in out
    assert "lemmata materialize first" in out
    assert lemmata("verify", "first")[:2] == (0, "first: sound, 6 steps, closed\n")


def test_a_run_is_never_overwritten(home: Path, lemmata: Lemmata) -> None:
    code, _, err = lemmata("record", "logistic", "--run", "sgdm")
    assert code == 2
    assert "never overwritten" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show", "nothing"), "no such run"),
        (("verify", "nothing"), "no such run"),
        (("report", "nothing"), "no such run"),
        (("show", ".."), "run id"),
        (("record", "nothing"), "Choose one of: logistic"),
        (("record", "logistic", "--optimizer", "lion"), "Choose one of: sgd"),
        (("materialize",), "--all"),
        (("materialize", "nothing"), "no such run"),
    ],
)
def test_a_wrong_call_is_one_message_and_exit_code_2(
    home: Path, lemmata: Lemmata, arguments: tuple[str, ...], says: str
) -> None:
    code, out, err = lemmata(*arguments)
    assert code == 2
    assert says in err
    assert err.startswith("lemmata: ")
    assert "Traceback" not in out + err


def test_verify_names_every_damaged_file(recorded_run: Path, lemmata: Lemmata) -> None:
    chunk = recorded_run / "chunk-000000.h5"
    flip(chunk)
    code, out, err = lemmata("verify", "sgdm")
    assert code == 1
    assert str(chunk) in err
    assert "sound" not in out


def test_a_damaged_run_does_not_hide_the_others_from_ls(recorded_run: Path, lemmata: Lemmata) -> None:
    (recorded_run / "manifest.json").write_text("{")
    code, out, _ = lemmata("ls")
    assert code == 0
    assert "damaged" in out
    assert "adamw" in out
    code, _, err = lemmata("show", "sgdm")
    assert code == 1
    assert "manifest.json" in err


def test_an_interrupted_run_says_where_it_ended(empty_home: Path, lemmata: Lemmata) -> None:
    program = """
import os, signal
from tracer.workloads import train

def stop(done, total, loss):
    if done == 20:
        os.kill(os.getpid(), signal.SIGKILL)

train("logistic", "cut", steps=50, progress=stop)
"""
    killed = subprocess.run([sys.executable, "-c", program], env=os.environ, check=False)
    assert killed.returncode == -signal.SIGKILL
    code, out, _ = lemmata("show", "cut")
    assert code == 0
    assert "interrupted" in out
    (listed,) = json.loads(lemmata("ls", "--json")[1])
    assert listed["status"] == "interrupted"
    assert f"last acknowledged step {listed['last_step']}" in out


def test_materialize_then_show_and_report(home: Path, lemmata: Lemmata) -> None:
    code, _, err = lemmata("report", "sgdm")
    assert code == 1
    assert "lemmata materialize sgdm" in err
    code, _, err = lemmata("materialize", "sgdm")
    assert (code, "sgdm: " in err) == (0, True)
    code, out, _ = lemmata("show", "sgdm")
    assert "convexity_gap" in out
    shown = json.loads(lemmata("show", "sgdm", "--json")[1])
    assert {row["status"] for row in shown["verdicts"]} <= {"HOLDS", "FAILS", "INCONCLUSIVE", "NOT APPLICABLE"}
    assert {row["proof"] for row in shown["proofs"]} >= {"descent_lemma"}
    assert out.index("Convexity along the step") < out.index("Smoothness and curvature") < out.index("Proofs")
    assert len(lemmata("show", "sgdm", "--all")[1].splitlines()) > len(out.splitlines())
    code, out, _ = lemmata("show", "sgdm", "directional_curvature")
    assert (code, out.count("not tested")) == (0, 2)  # 60 steps are too few
    assert "0 of 2 tensors tested" in out
    one = json.loads(lemmata("show", "sgdm", "directional_curvature", "--json")[1])
    assert {row["metric"] for row in one["verdicts"]} == {"directional_curvature"}
    assert (len(one["blocks"]), {row["window"] for row in one["windows"]} >= {"run", "steps:100"}) == (2, True)
    code, _, err = lemmata("show", "sgdm", "no_such_metric")
    assert code == 2
    assert "convexity_gap" in err
    code, out, _ = lemmata("report", "sgdm")
    assert code == 0
    assert Path(out.strip()).is_file()
    code, out, _ = lemmata("report", "sgdm", "sgdm")
    assert code == 0
    assert "2 runs beside each other" in Path(out.strip()).read_text(encoding="utf-8")
    code, _, err = lemmata("materialize", "sgdm", "--metric", "no_such_metric")
    assert code == 2
    assert "convexity_gap" in err


def test_materialize_goes_on_after_a_failed_run_and_names_the_file(recorded_run: Path, lemmata: Lemmata) -> None:
    flip(recorded_run / "chunk-000000.h5")
    code, _, err = lemmata("materialize", "--all")
    assert code == 1
    assert str(recorded_run / "chunk-000000.h5") in err
    assert "1 of 2 runs" in err
    assert lemmata("show", "adamw")[1].count("convexity_gap") > 0
    assert "No verdicts yet" in lemmata("show", "sgdm")[1]


def test_the_demo_ends_with_verdicts_reports_and_the_next_command_and_can_be_repeated(
    empty_home: Path, lemmata: Lemmata, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.terminal.demo.PROBLEMS", ("logistic",))  # one run: the README's own test has all four
    monkeypatch.setattr("pipeline.terminal.demo.OPTIMIZERS", ("adamw",))
    code, out, _ = lemmata("demo", "--steps", "40")
    assert code == 0
    assert "convexity_gap" in out
    reports = [line.removeprefix("report: ") for line in out.splitlines() if line.startswith("report: ")]
    assert [Path(report).is_file() for report in reports] == [True]
    assert "lemmata ui" in out.splitlines()[-1]
    code, out, err = lemmata("demo", "--steps", "20")
    assert code == 0, err
    assert "replacing" in out
    assert [run["steps"] for run in json.loads(lemmata("ls", "--json")[1])] == [21]


def test_a_missing_extra_is_named_with_the_command_that_installs_it(
    home: Path, lemmata: Lemmata, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("pipeline.") and name != "pipeline.commands"]:
        if name.count(".") == 1:  # what is imported anew takes its place there, too
            monkeypatch.setattr(pipeline, name.removeprefix("pipeline."), sys.modules[name])
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "dagster", None)
    code, _, err = lemmata("materialize", "sgdm")
    assert code == 1
    assert (
        "lemmata materialize needs the pipeline extra: pip install 'lemmata[pipeline]' (no module named dagster" in err
    )


def test_ui_refuses_a_port_that_is_taken(home: Path, lemmata: Lemmata) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, err = lemmata("ui", "--port", str(port))
    assert code == 1
    assert f"port {port}" in err


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
