"""A disk that fills up at any page of a run: what was acknowledged reads back, whatever is done about it then."""

import os
import shutil
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from tests import faults
from tests.by_hand import manifest, micro_batches, same_batches, vectors, write_run
from tests.rerun_homes import few_metrics, record, say
from tracer.errors import RecordingError
from tracer.store import Trace, verify
from tracer.store.files import write_aside
from tracer.store.minibatch import encode
from tracer.store.run_writer import RunWriter, Step

STEPS, TOGETHER, CHUNK_ROWS, ROOM = 26, 3, 8, 1 << 20
ROWS = vectors(STEPS, 700)
BATCHES = micro_batches(STEPS)


@pytest.fixture(scope="module", params=["tmpfs", "ext4"])
def disk(request, tmp_path_factory):
    """A file system of its own with a MiB of room."""
    if not faults.can_mount(request.param):
        pytest.skip(f"needs the right to mount a small {request.param}")
    with faults.small_disk(tmp_path_factory.mktemp("disk"), request.param, ROOM) as mount:
        yield mount


@pytest.mark.parametrize("batches", [False, True], ids=["vectors", "minibatches"])
def test_at_any_page_nothing_acknowledged_is_lost(disk, batches):
    ways = [_close_on_the_full_disk, _make_room_and_close, _make_room_and_go_on, _make_room_and_resume]
    refused = 0
    for i, pages in enumerate(range(ROOM >> 12)):
        with _left(disk, pages << 12) as fill:
            try:
                writer = _writer(disk / "run", batches)
            except OSError:
                continue  # no room for the manifest: there is no run
            error = _append(writer, batches)
            writer = ways[i % 4](writer, fill, error, batches) or writer
            _check(disk / "run", writer.last_step, batches)
            refused += error is not None
            if error is None:
                break
    assert error is None, "the last run had all the room it wanted"
    assert refused > 20


def test_what_is_written_aside_goes_where_there_is_no_room_for_it(disk):
    with _left(disk, 1 << 12), pytest.raises(OSError, match="No space left"):
        write_aside(disk / "large", bytes(1 << 16))
    assert not list(disk.glob("large*"))


@pytest.mark.skipif(not faults.can_mount(), reason="needs the right to mount a small tmpfs")
def test_where_dagster_finds_no_room_one_text_says_so_and_with_room_it_goes_on(tmp_path, monkeypatch, capfd):
    few_metrics(monkeypatch)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    with faults.small_disk(tmp_path, "tmpfs", 32 << 20) as disk:
        monkeypatch.setenv("LEMMATA_HOME", str(disk))
        record("one")
        with _left(disk, 1 << 18):
            assert say(["materialize", "one"]) == 1
        said = capfd.readouterr().err
        assert str(disk / "dagster") in said.splitlines()[-1]
        assert "Make room" in said.splitlines()[-1]
        assert "Traceback" not in said
        assert say(["materialize", "one"]) == 0


def test_a_run_without_any_step_opens(tmp_path):
    write_run(tmp_path / "run", {"x": np.empty((0, 7), np.float32)})
    assert Trace(tmp_path / "run").step_count == 0


def _writer(path, batches, **options):
    m = manifest("run", (300, 400), batches=batches)
    return RunWriter(path, m, chunk_bytes=m.layout.step_bytes * CHUNK_ROWS, **options)


def _append(writer, batches):
    """Append the steps from the writer's last one on; the error that stopped it."""
    first = 0 if writer.last_step is None else writer.last_step + 1
    try:
        for t in range(first, STEPS, TOGETHER):
            writer.append_all([_step(step, batches) for step in range(t, min(t + TOGETHER, STEPS))])
    except RecordingError as error:
        return error
    return None


def _step(t, batches):
    record = {"time_ns": t, "finite": True, "loss": 1.0, "hyper:group0.lr": 0.1}
    return Step(t, record, {stream: v[t] for stream, v in ROWS.items()}, encode(BATCHES[t]) if batches else ())


def _close_on_the_full_disk(writer, fill, error, batches):
    with suppress(OSError):  # where even the manifest finds no room
        writer.close("failed", error=str(error))


def _make_room_and_close(writer, fill, error, batches):
    fill.unlink()
    writer.close("failed", error=str(error))
    assert Trace(writer.directory).status == "closed"


def _make_room_and_go_on(writer, fill, error, batches):
    fill.unlink()
    assert _append(writer, batches) is None
    assert writer.last_step == STEPS - 1
    writer.close("finished")


def _make_room_and_resume(writer, fill, error, batches):
    _close_on_the_full_disk(writer, fill, error, batches)
    fill.unlink()
    again = _writer(writer.directory, batches, resume_at=0 if writer.last_step is None else writer.last_step + 1)
    assert _append(again, batches) is None
    assert again.last_step == STEPS - 1
    again.close("finished")
    return again


def _check(path, acknowledged, batches):
    found = Trace(path)
    assert found.last_step == acknowledged
    assert found.steps.tolist() == list(range(0 if acknowledged is None else acknowledged + 1))
    assert verify(path) == []
    for chunk in found.chunks():
        for stream, vector in chunk.streams.items():
            assert np.array_equal(vector, ROWS[stream][chunk.steps])
    if batches:
        for step, each in found.batches_by_step():
            assert same_batches(each, BATCHES[step]), step


@contextmanager
def _left(disk, room):
    """All but ``room`` bytes of the disk taken, by a file that may be removed."""
    fill = disk / "fill"
    free = os.statvfs(disk)
    taken = free.f_bavail * free.f_frsize - room
    with open(fill, "wb") as file:
        if taken > 0:
            os.posix_fallocate(file.fileno(), 0, taken)
    try:
        yield fill
    finally:
        fill.unlink(missing_ok=True)
        shutil.rmtree(disk / "run", ignore_errors=True)
