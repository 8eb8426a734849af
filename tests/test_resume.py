"""Going on with a run: nothing is overwritten, nothing is mixed."""

import fcntl
import os
import threading

import numpy as np
import polars as pl
import pytest

from analysis.geometry import geometry
from tests.by_hand import manifest, vectors, write_run
from tests.faults import killed_run
from tracer.errors import RecordingError, UsageError
from tracer.store import Trace, verify
from tracer.store.run_writer import RunWriter

ROWS = vectors(9, 7)


def go_on(path, at, until, final_point=False, **options):
    writer = RunWriter(path, manifest(path.name), resume_at=at, **options)
    append(writer, range(at, until))
    if final_point:
        writer.append(until, {"time_ns": 0, "finite": True}, {"x": ROWS["x"][until]})
    writer.close("finished")


def append(writer, steps):
    for t in steps:
        writer.append(t, {"time_ns": t, "finite": True, "loss": float(t)}, {s: v[t] for s, v in ROWS.items()})


def head(n):
    return {s: v[:n] for s, v in ROWS.items()}


def test_a_closed_run_goes_on_under_a_new_attempt(tmp_path):
    write_run(tmp_path / "run", head(4))
    before = Trace(tmp_path / "run").digest
    go_on(tmp_path / "run", 4, 7)
    trace = Trace(tmp_path / "run")
    assert trace.steps.tolist() == list(range(7))
    assert np.array_equal(np.concatenate([c.x for c in trace.chunks()]), ROWS["x"][:7])
    assert [a["attempt"] for a in trace.manifest.attempts] == [1, 2]
    assert trace.manifest.attempts[1]["first_step"] == 4
    assert trace.digest != before
    assert verify(tmp_path / "run") == []


def test_a_final_point_gives_way_to_the_step_that_begins_there(tmp_path):
    writer = RunWriter(tmp_path / "run", manifest())
    append(writer, range(3))
    writer.append(3, {"time_ns": 0, "finite": True}, {"x": ROWS["x"][3]})
    writer.close("finished")
    go_on(tmp_path / "run", 3, 5, final_point=True)
    trace = Trace(tmp_path / "run")
    assert trace.steps.tolist() == [0, 1, 2, 3, 4, 5]
    assert trace.records()["has_g"].to_pylist() == [True] * 5 + [False]
    assert trace.records()["step"].to_pylist() == trace.steps.tolist()
    assert verify(tmp_path / "run") == []


def test_a_killed_run_goes_on_after_its_last_acknowledged_step(tmp_path):
    killed_run(tmp_path / "run", 0.3)
    before = Trace(tmp_path / "run")
    points = np.concatenate([c.x for c in before.chunks()])
    m = before.manifest
    writer = RunWriter(tmp_path / "run", m, resume_at=before.last_step + 1)
    writer.append(before.last_step + 1, {"time_ns": 0, "finite": True}, {"x": points[0], "g": points[0]})
    writer.close("finished")
    after = Trace(tmp_path / "run")
    assert after.step_count == before.step_count + 1
    assert np.array_equal(np.concatenate([c.x for c in after.chunks()])[:-1], points)
    assert verify(tmp_path / "run") == []
    assert not list((tmp_path / "run").glob("*.tmp"))


def test_steps_that_are_recorded_are_never_overwritten(tmp_path):
    write_run(tmp_path / "run", head(5))
    before = Trace(tmp_path / "run").digest
    with pytest.raises(UsageError, match=r"steps up to 4 are recorded.*branch_of=\('run', 3\)"):
        go_on(tmp_path / "run", 3, 5)
    assert Trace(tmp_path / "run").digest == before


def test_another_training_is_never_mixed_in(tmp_path):
    write_run(tmp_path / "run", head(5))
    with pytest.raises(UsageError, match="its blocks are not those of this model"):
        RunWriter(tmp_path / "run", manifest(sizes=(3, 5)), resume_at=5)


def test_a_second_writer_is_refused_also_when_it_resumes(tmp_path):
    writer = write_run(tmp_path / "run", head(3), close=False)
    with pytest.raises(UsageError, match="another process is recording"):
        RunWriter(tmp_path / "run", manifest(), resume_at=3)
    writer.close("finished")


def test_a_run_that_goes_on_after_a_seal_was_interrupted_keeps_the_sealed_chunk(tmp_path):
    """Killed between the last rename of a seal and the removal of what it replaces."""
    writer = write_run(tmp_path / "run", head(4), close=False, chunk_rows=9)
    saved = {p.name: p.read_bytes() for p in (tmp_path / "run").glob("*.tmp")}
    writer.close("finished")
    for name, content in saved.items():
        (tmp_path / "run" / name).write_bytes(content)
    assert Trace(tmp_path / "run").steps.tolist() == [0, 1, 2, 3]
    go_on(tmp_path / "run", 4, 6)
    assert Trace(tmp_path / "run").steps.tolist() == [0, 1, 2, 3, 4, 5]
    assert not list((tmp_path / "run").glob("*.tmp"))


def test_a_vanished_directory_stops_recording_at_the_next_step(tmp_path):
    import shutil

    writer = write_run(tmp_path / "run", head(3), close=False, chunk_rows=9)
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(RecordingError, match=r"stopped at step 3.*removed while it was being recorded"):
        append(writer, [3])
    with pytest.raises(OSError, match="No such file"):
        writer.close("finished")


def test_a_trace_opened_before_a_chunk_is_sealed_still_reads(tmp_path):
    writer = write_run(tmp_path / "run", head(4), close=False, chunk_rows=9)
    early, late = Trace(tmp_path / "run"), Trace(tmp_path / "run")
    assert early.step_count == 4
    append(writer, range(4, 7))
    writer.close("finished")
    assert early.records().num_rows == 4
    assert np.array_equal(next(early.chunks()).x, ROWS["x"][:4])
    assert late.step_count == 7, "its files were looked up before they were renamed"


def test_somebody_who_asks_whether_a_run_is_being_written_does_not_keep_a_writer_out(tmp_path, monkeypatch):
    monkeypatch.setattr("tracer.store.lock.PATIENCE", 500)  # this process may be held up for long
    write_run(tmp_path / "run", head(3))
    asking = os.open(tmp_path / "run", os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH)
    threading.Timer(0.05, os.close, [asking]).start()
    go_on(tmp_path / "run", 3, 5)
    assert Trace(tmp_path / "run").step_count == 5


def test_no_pair_joins_two_attempts(tmp_path):
    """Whoever resumes may have loaded another checkpoint: the step between two attempts is nobody's update."""
    write_run(tmp_path / "run", head(4))
    go_on(tmp_path / "run", 4, 7)
    tables = geometry(Trace(tmp_path / "run"))
    model = tables.geometry.filter(pl.col("block") == "model", pl.col("pairing") == "unpaired").collect()
    assert 4 not in model["step"]
    path = tables.path.filter(pl.col("block") == "model").collect()
    assert path["x_d"].is_null().to_list() == [True, False, False, False, True, False, False]
    assert path["d_dprev"].is_null().to_list() == [True, True, False, False, True, True, False]
