"""The Dagster instance in a real PostgreSQL, started for this test on 127.0.0.1; without it, messages only."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from pipeline.instance import opened, prepare, register
from pipeline.materialize import materialize
from tracer.errors import LemmataError, UsageError

PASSWORD = "not-for-eyes"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """URL of a database of our own; the server ends with the module."""
    found = shutil.which("initdb") or next(map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)
    if found is None:
        pytest.skip("PostgreSQL is not installed: no initdb")
    programs = Path(found).resolve().parent
    other = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.getuid() == 0 else []  # not root
    if other and not shutil.which("setpriv"):
        pytest.skip("PostgreSQL refuses to run as root, and setpriv is not installed")
    folder = Path(tempfile.mkdtemp(prefix="lemmata-postgres-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    try:
        (folder / "password").write_text(PASSWORD)
        if other:
            for path in (folder, folder / "password"):
                shutil.chown(path, "nobody")
        quiet = {"check": True, "stdout": subprocess.DEVNULL, "cwd": folder}
        how = ["-D", folder / "data", "-U", "me", "-A", "scram-sha-256", "--pwfile", folder / "password", "--no-sync"]
        subprocess.run([*other, programs / "initdb", *how], **quiet)
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        control = [*other, programs / "pg_ctl", "-w", "-D", folder / "data"]
        subprocess.run([*control, "-l", folder / "log", "-o", options, "start"], **quiet)
        try:
            yield f"postgresql://me:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], **quiet)
    finally:
        shutil.rmtree(folder)


def test_a_run_is_computed_and_found_again_in_postgres(
    home: Path, server: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEMMATA_POSTGRES", server)
    (outcome,) = materialize(["sgdm"], ["trace"])
    assert outcome.succeeded
    with opened() as instance:
        assert type(instance.event_log_storage).__name__ == "PostgresEventLogStorage"
        assert instance.get_dynamic_partitions("runs") == ["sgdm"]
        assert instance.get_materialized_partitions(dg.AssetKey("trace")) == {"sgdm"}
    assert not list(home.rglob("*.db"))
    assert not (home / "dagster").exists()
    files = [path for path in home.rglob("*") if path.is_file()]
    assert home / "dagster-postgres" / "dagster.yaml" in files
    assert not [path for path in files if PASSWORD.encode() in path.read_bytes()]
    assert PASSWORD not in "".join(capfd.readouterr())


def test_processes_that_open_a_fresh_database_at_once_do_not_damage_it(
    empty_home: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg2

    connection = psycopg2.connect(server)
    connection.autocommit = True
    connection.cursor().execute("create database fresh")
    connection.close()
    monkeypatch.setenv("LEMMATA_POSTGRES", server.rpartition("/")[0] + "/fresh")
    register_it = "import sys; from pipeline.instance import *\nwith opened() as i: register(i, [sys.argv[1]])"
    other = subprocess.Popen([sys.executable, "-W", "ignore", "-c", register_it, "a"])
    with opened() as instance:
        register(instance, ["b"])
    assert other.wait() == 0
    with opened() as instance:
        assert sorted(instance.get_dynamic_partitions("runs")) == ["a", "b"]


def test_a_wrong_password_is_refused_without_being_shown(
    empty_home: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEMMATA_POSTGRES", server.replace(PASSWORD, "open%2Fsesame"))
    with pytest.raises(LemmataError, match=r"expected the database 127\.0\.0\.1:.*authentication failed") as refused:
        prepare()
    assert "sesame" not in str(refused.value)
    assert refused.value.__suppress_context__


@pytest.mark.parametrize(
    "wrong", ["yes", "mysql://a:secret@b/c", "postgresql://me:sec@ret:x@host:abc/d", "postgresql://h"]
)
def test_what_is_no_url_of_a_database_is_refused_without_being_shown(
    wrong: str, empty_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEMMATA_POSTGRES", wrong)
    with pytest.raises(UsageError, match="LEMMATA_POSTGRES: expected postgresql://USER") as refused:
        prepare()
    assert wrong not in str(refused.value)


def test_a_server_that_is_not_there_is_named(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEMMATA_POSTGRES", "postgresql://me:secret@127.0.0.1:9/runs")
    with pytest.raises(LemmataError, match=r"expected the database 127\.0\.0\.1:9/runs; found: .*refused") as refused:
        prepare()
    assert "secret" not in str(refused.value)


def test_an_instance_of_the_user_that_says_nothing_of_postgres_is_refused(
    empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("LEMMATA_POSTGRES", "postgresql://me:secret@127.0.0.1:9/runs")
    with pytest.raises(UsageError, match=r"dagster\.yaml: expected it to name LEMMATA_POSTGRES"):
        prepare()


def test_the_extra_that_is_missing_is_named(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEMMATA_POSTGRES", "postgresql://me:secret@127.0.0.1:9/runs")
    monkeypatch.setitem(sys.modules, "dagster_postgres", None)
    with pytest.raises(UsageError, match=r"expected the extra postgres.*pip install 'lemmata\[postgres\]'"):
        prepare()
