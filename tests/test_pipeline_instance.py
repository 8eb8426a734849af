"""The Dagster home: made once, shared by processes, not blocked by those that died."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from pipeline.abandoned import OWNER, SERVED, owner
from pipeline.instance import opened, prepare
from tracer.errors import UsageError

OPEN_AND_REGISTER = """
import sys
from pipeline.instance import opened, register
with opened() as instance:
    register(instance, [sys.argv[1]])
"""


def test_processes_that_open_a_fresh_home_at_once_do_not_damage_it(empty_home: Path) -> None:
    names = ["a", "b", "c"]
    started = [subprocess.Popen([sys.executable, "-c", OPEN_AND_REGISTER, name]) for name in names]
    assert [process.wait() for process in started] == [0, 0, 0]
    with opened() as instance:
        assert sorted(instance.get_dynamic_partitions("runs")) == names


def test_a_configuration_that_the_user_changed_is_kept(empty_home: Path) -> None:
    configuration = prepare() / "dagster.yaml"
    assert "telemetry:\n  enabled: false" in configuration.read_text()
    configuration.write_text("telemetry:\n  enabled: false\n")
    prepare()
    assert configuration.read_text() == "telemetry:\n  enabled: false\n"


def test_an_existing_dagster_home_is_used_and_left_as_it_is(
    empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "dagster-of-the-user"
    own.mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(own))
    assert prepare() == own
    assert not (own / "dagster.yaml").exists()
    assert not empty_home.exists()


@pytest.mark.parametrize("wrong", ["relative", "/no/such/directory"])
def test_a_dagster_home_that_is_not_there_is_named(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", wrong)
    with pytest.raises(UsageError, match=wrong):
        prepare()


def test_runs_of_dead_processes_are_cancelled_and_those_of_living_ones_are_not(empty_home: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    here = socket.gethostname()
    tags = {
        "killed": {OWNER: f"{here}:{dead.pid}"},
        "its server is gone": {SERVED: json.dumps({"host": "localhost", "socket": "/no/such/socket"})},
        "ours": owner(),
        "elsewhere": {OWNER: f"another-{here}:{os.getpid()}"},
        "unknown": {},
    }
    with opened() as instance:
        for name, of_run in tags.items():
            instance.add_run(dg.DagsterRun("job", run_id=name, status=dg.DagsterRunStatus.STARTED, tags=of_run))
    with opened() as instance:
        cancelled = {run.run_id for run in instance.get_runs() if run.status == dg.DagsterRunStatus.CANCELED}
    assert cancelled == {"killed", "its server is gone"}
