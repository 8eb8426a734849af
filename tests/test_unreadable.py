"""What cannot be read or reached is named, with what to do, and hides nothing else."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.archives import archived
from pipeline.materialize import materialize
from pipeline.terminal import doctor, doctor_pipeline
from pipeline.terminal.findings import Finding
from pipeline.terminal.sections import guarded
from pipeline.terminal.show import describe_all, verdicts_of
from tests.conftest import Lemmata
from tests.test_object_store import bucket, server  # noqa: F401  fixtures
from tracer.errors import FormatError, LemmataError, UsageError
from tracer.store import Trace, runs, verify
from tracer.store import home as homes
from tracer.store.archive import archive
from tracer.store.lock import Lock
from tracer.store.manifest import Manifest, read_manifest, write_manifest
from tracer.store.places import open_new, open_old
from tracer.store.restore import restore

ROOT = Path(__file__).parents[1]
CAPABILITIES = "-dac_override,-dac_read_search"
DEPRIVED = ("setpriv", f"--bounding-set={CAPABILITIES}", f"--inh-caps={CAPABILITIES}")
NO_CREDENTIALS = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
Deprived = Callable[[str], Any]


@pytest.fixture
def deprived(tmp_path: Path) -> Iterator[Deprived]:
    """Evaluate code in a process that may not read everything, which root may; it prints JSON."""
    wrapped = [*DEPRIVED] if os.geteuid() == 0 else []
    (tmp_path / "closed").touch(mode=0o000)
    try:
        probe = subprocess.run([*wrapped, "cat", str(tmp_path / "closed")], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("root reads everything here, and setpriv is not installed")
    if probe.returncode == 0 or b"ermission denied" not in probe.stderr:
        pytest.skip("root reads everything here, and setpriv cannot take that away")

    def run(code: str) -> Any:
        done = subprocess.run(
            [*wrapped, sys.executable, "-c", f"import json\n{code}"], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    yield run
    for path in tmp_path.rglob("*"):
        path.chmod(0o700)


@pytest.fixture
def own_clients() -> Iterator[None]:
    """Clients of S3 that other tests made, of servers that are gone, are not taken up again; nor are this test's."""
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()
    yield
    S3FileSystem.clear_instance_cache()


@pytest.fixture
def no_credentials(own_clients: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 without anything that says who asks."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in NO_CREDENTIALS.items():
        monkeypatch.setenv(name, value)


def said(findings: list[Finding], about: str) -> list[tuple[str, str]]:
    return [(each.level, f"{each.says} → {each.do}") for each in findings if each.about == about]


LISTED = """
from dataclasses import asdict
from pipeline.terminal.doctor import recorded
from pipeline.terminal.show import describe_all
print(json.dumps([describe_all(), [asdict(each) for each in recorded()]]))
"""


@pytest.mark.parametrize("mode", [0o000, 0o300, 0o400])
def test_a_run_that_may_not_be_read_hides_no_other(home: Path, deprived: Deprived, mode: int) -> None:
    path = home / "runs" / "adamw"
    path.chmod(mode)
    listed, findings = deprived(LISTED)
    path.chmod(0o700)
    assert {each["run_id"]: each["status"] for each in listed} == {"adamw": "damaged", "sgdm": "closed"}
    assert listed[0]["error"].startswith(str(path))
    assert "Permission denied" in listed[0]["error"]
    assert "eadable" in listed[0]["error"]
    assert "removed" not in listed[0]["error"]
    assert [each["level"] for each in findings if each["about"] == "runs"] == ["error", "ok"]


def test_a_run_that_may_not_be_read_fails_alone(home: Path, deprived: Deprived) -> None:
    (home / "runs" / "adamw").chmod(0o000)
    outcomes = deprived(
        "from pipeline.archives import known\nfrom pipeline.materialize import materialize\n"
        "found = materialize(known(), ['trace'])\n"
        "print(json.dumps([[each.run_id, *(failure.message for failure in each.failures)] for each in found]))"
    )
    (home / "runs" / "adamw").chmod(0o700)
    failed = {name: messages for name, *messages in outcomes}
    assert failed["sgdm"] == []
    assert str(home / "runs" / "adamw") in failed["adamw"][0]
    assert "Permission denied" in failed["adamw"][0]


def test_a_file_that_may_not_be_read_is_not_called_damaged(home: Path, deprived: Deprived) -> None:
    path = home / "runs" / "sgdm"
    for name in ("chunk-000000.h5", "chunk-000000.arrow"):
        (path / name).chmod(0o000)
        (text,) = deprived(f"from tracer.store import verify\nprint(json.dumps(list(map(str, verify({str(path)!r})))))")
        (path / name).chmod(0o600)
        assert text == f"{path / name}: file: Permission denied. Make this file readable."


def test_directories_of_others_beside_the_runs_are_no_runs(home: Path, deprived: Deprived) -> None:
    for name in ("lost+found", "sgdm.x1.aside"):
        (home / "runs" / name).mkdir(mode=0o000)
    found = deprived(f"from tracer.store import runs\nprint(json.dumps(list(map(str, runs({str(home / 'runs')!r})))))")
    assert found == [str(home / "runs" / name) for name in ("adamw", "sgdm")]


def test_a_home_that_is_a_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lemmata: Lemmata) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LEMMATA_HOME", str(tmp_path / "file"))
    for command in (("ls",), ("materialize", "--all")):
        code, _, err = lemmata(*command)
        assert code == 2
        assert "LEMMATA_HOME" in err
        assert str(tmp_path / "file") in err
    code, out, err = lemmata("doctor", "--json")
    found = [Finding(**each) for each in json.loads(out)]
    assert code == 1
    assert said(found, "home")[0][0] == said(found, "runs")[0][0] == "error"
    assert {"metrics", "Dagster instance"} <= {each.about for each in found}, "the worst stopped the rest"


def test_what_stops_one_section_of_the_doctor_is_a_finding(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[Finding]:
        yield Finding("ok", "first", "there")
        raise OSError(5, "Input/output error", "/a/file")

    found = list(guarded("disk", broken))
    assert [each.about for each in found] == ["first", "disk"]
    assert (found[1].level, "/a/file" in found[1].says, bool(found[1].do)) == ("error", True, True)


@pytest.mark.usefixtures("no_credentials")
class TestStores:
    def test_an_archive_of_a_store_that_lets_nobody_in(self, recorded_run: Path, tmp_path: Path) -> None:
        url = "s3://nobucket/sgdm.lemmata"
        for call in (lambda: archive(recorded_run, url), lambda: restore(url, tmp_path / "back")):
            with pytest.raises(LemmataError, match=rf"^{url}: Unable to locate credentials\..*AWS_ACCESS_KEY_ID"):
                call()

    @pytest.mark.parametrize(("setting", "root"), [("TABLES", "tables_root"), ("ARCHIVES", "archives_root")])
    def test_a_root_on_such_a_store(
        self, home: Path, monkeypatch: pytest.MonkeyPatch, lemmata: Lemmata, setting: str, root: str
    ) -> None:
        monkeypatch.setenv(f"LEMMATA_{setting}", "s3://nobucket/t")
        words = rf"LEMMATA_{setting}=s3://nobucket/t: Unable to locate credentials\."
        with pytest.raises(UsageError, match=f"^{words}.*AWS_ENDPOINT_URL"):
            getattr(homes, root)()
        code, _, err = lemmata(*(("show", "sgdm") if setting == "TABLES" else ("materialize", "sgdm")))
        assert (code, "LEMMATA_" in err, "Traceback" in err) == (2, True, False)
        ((level, text),) = said(list(doctor.roots()), f"LEMMATA_{setting}")
        assert (level, "Unable to locate credentials" in text) == ("error", True)

    def test_a_store_nobody_answers_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "of-this-test")
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        with (
            pytest.raises(LemmataError, match=r"^s3://nobucket/a: Could not connect.*AWS_ENDPOINT_URL"),
            open_old("s3://nobucket/a"),
        ):
            pass


def test_a_bucket_that_is_not_there_is_told_from_one_that_is_empty(
    own_clients: None,
    recorded_run: Path,
    bucket: Any,  # noqa: F811  the fixture
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LEMMATA_TABLES", str(bucket / "tables"))
    assert verdicts_of(homes.tables_root(), "sgdm") is None
    monkeypatch.setenv("LEMMATA_TABLES", "s3://no-such-bucket/tables")
    with pytest.raises(UsageError, match=r"^LEMMATA_TABLES=s3://no-such-bucket/tables: .* no such bucket"):
        homes.tables_root()
    monkeypatch.setenv("LEMMATA_ARCHIVES", str(bucket / "old"))
    with pytest.raises(UsageError, match=r"^LEMMATA_ARCHIVES=.*found nothing there"):
        archived()
    monkeypatch.setenv("LEMMATA_ARCHIVES", str(bucket))
    assert archived() == {}
    with pytest.raises(LemmataError, match=r"^s3://no-such-bucket/a: "):
        archive(recorded_run, "s3://no-such-bucket/a")


def test_a_store_that_falls_silent_half_way(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

    def dead(*_: object) -> bytes:
        raise RuntimeError("the line went dead")

    with open_new("memory://silent/a") as file:
        file.write(b"1")
    monkeypatch.setattr(MemoryFile, "read", dead, raising=False)
    monkeypatch.setattr(MemoryFile, "write", dead, raising=False)
    with (
        pytest.raises(LemmataError, match=r"^memory://silent/a: the line went dead\."),
        open_old("memory://silent/a") as (old, _),
    ):
        old.read(1)
    with (
        pytest.raises(LemmataError, match=r"^memory://silent/b: the line went dead\."),
        open_new("memory://silent/b") as new,
    ):
        new.write(b"1")
    assert not MemoryFileSystem().exists("/silent/b")
    with pytest.raises(RuntimeError, match="our own"), open_new("memory://silent/c"):
        raise RuntimeError("our own")  # of who writes: no fault of the store


def test_tables_that_are_a_file_are_not_called_uncomputed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lemmata: Lemmata
) -> None:
    assert verdicts_of(home / "tables", "sgdm") is None, "may not be there yet"
    (tmp_path / "file").touch()
    for wrong in (tmp_path / "file", tmp_path / "file" / "below"):
        monkeypatch.setenv("LEMMATA_TABLES", str(wrong))
        for command in (["show", "sgdm"], ["materialize", "sgdm"], ["rerun", "--stale"]):
            code, out, err = lemmata(*command)
            assert (code, out) == (2, "")
            assert f"LEMMATA_TABLES={wrong}: expected a directory" in err
    ((level, text),) = said(list(doctor.roots()), "LEMMATA_TABLES")
    assert (level, "LEMMATA_TABLES=" in text) == ("error", True)
    found = doctor.examine()
    assert [each.about for each in found if each.level != "ok" and each.about == "tables"] == []


def test_archives_that_are_nowhere_are_not_none(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lemmata: Lemmata
) -> None:
    (tmp_path / "file").touch()
    for wrong, what in ((tmp_path / "file", "a directory"), (tmp_path / "nowhere", "a directory, found nothing")):
        monkeypatch.setenv("LEMMATA_ARCHIVES", str(wrong))
        with pytest.raises(UsageError, match=f"^LEMMATA_ARCHIVES={wrong}: expected {what}"):
            archived()
        assert [level for level, _ in said(list(doctor.roots()), "LEMMATA_ARCHIVES")] == ["error"]
    (tmp_path / "nowhere").mkdir()
    assert archived() == {}
    assert [level for level, _ in said(list(doctor.roots()), "LEMMATA_ARCHIVES")] == ["ok"]


def test_a_copy_is_not_moved_into_the_run_it_copies(home: Path) -> None:
    one, copy = home / "runs" / "sgdm", home / "runs" / "copied"
    shutil.copytree(one, copy)
    (level, text), _ = said(list(doctor.recorded()), "runs")
    assert level == "error"
    assert "a copy of the run sgdm, which is there" in text
    assert "mv " not in text
    shutil.rmtree(one)
    assert f"mv {copy} {one}" in said(list(doctor.recorded()), "runs")[0][1]


def test_a_damaged_run_is_verified_and_damaged_tables_are_computed_again() -> None:
    why = ["x: damaged. See: lemmata verify a", "y: damaged Compute it again: lemmata materialize b"]
    table = pl.DataFrame({"run_id": ["a", "b"], "state": ["not readable"] * 2, "why": why})
    found = list(doctor_pipeline._behind(table))
    assert [(each.level, each.do) for each in found] == [
        ("error", "lemmata verify a"),
        ("error", "lemmata materialize b"),
    ]


def test_a_run_that_is_still_being_recorded_is_not_behind(home: Path) -> None:
    path = home / "runs" / "sgdm"
    write_manifest(path, Manifest.with_(read_manifest(path), ended=None))
    shutil.rmtree(home / "runs" / "adamw")
    lock = Lock.take(path)
    try:
        found = said(doctor_pipeline.examine_pipeline(), "tables")
    finally:
        lock.release()
    assert found == [("ok", "1 runs are still being recorded: sgdm → ")]


def test_chunks_without_a_manifest_are_pointed_out(home: Path) -> None:
    for name, made in (("adamw", False), ("sgdm", True)):
        manifest = home / "runs" / name / "manifest.json"
        manifest.unlink()
        if made:
            manifest.mkdir()
    (home / "runs" / "notes").mkdir()
    assert describe_all() == []
    found = said(list(doctor.recorded()), "runs")
    assert [level for level, _ in found] == ["warning", "warning", "ok"]
    for (_, text), name in zip(found, ("adamw", "sgdm"), strict=False):
        assert str(home / "runs" / name) in text
        assert "manifest.json" in text


def test_a_chunk_too_many_and_one_too_few_are_told_apart(recorded_run: Path) -> None:
    for suffix in ("h5", "arrow"):
        shutil.copy(recorded_run / f"chunk-000000.{suffix}", recorded_run / f"chunk-000001.{suffix}")
    with pytest.raises(FormatError, match=r"2 chunk files; its manifest promises 1\. Take away") as error:
        Trace(recorded_run)
    assert "missing" not in str(error.value)
    for path in recorded_run.glob("chunk-*"):
        path.unlink()
    with pytest.raises(FormatError, match=r"0 chunk files; its manifest promises 1\. Bring the missing ones back"):
        Trace(recorded_run)


def test_an_edited_manifest_is_told_without_names_of_classes(recorded_run: Path) -> None:
    path = recorded_run / "manifest.json"
    body = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**body, "created": "yesterday"}), encoding="utf-8")
    with pytest.raises(FormatError, match=rf"^{path}: its hash does not match its content: damaged or edited\."):
        Trace(recorded_run)


def test_verify_names_a_file_once(recorded_run: Path, lemmata: Lemmata) -> None:
    for name in ("chunk-000000.h5", "chunk-000000.arrow", "manifest.json"):
        path = recorded_run / name
        whole = path.read_bytes()
        path.write_bytes(b"")
        (found,) = verify(recorded_run)
        assert found.path == path
        assert str(found).count(str(path)) == 1
        path.write_bytes(whole)
    assert verify(recorded_run) == []
    assert runs(recorded_run.parent)
    shutil.copy(recorded_run / "chunk-000000.h5", recorded_run / "chunk-000001.h5")
    (found,) = verify(recorded_run)
    assert str(found).count(str(recorded_run)) == 1


def test_an_executor_that_gives_up_is_told_without_a_traceback(
    recorded_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dask

    monkeypatch.setenv("LEMMATA_EXECUTOR", "dask:tcp://127.0.0.1:1")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(LemmataError, match=r"^LEMMATA_EXECUTOR=dask:tcp://127\.0\.0\.1:1: ") as error,
    ):
        materialize(["sgdm"], ["trace"])
    text = str(error.value)
    assert "expected a dask scheduler" in text
    assert text.count("LEMMATA_EXECUTOR") == 1
    assert "Stack Trace" not in text
    assert "\n" not in text
