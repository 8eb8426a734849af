"""A chunk file is whole from the moment it has its name, whenever the process dies."""

import os

import pytest

from tests.by_hand import manifest, vectors, write_run
from tracer.store import Trace, chunk_writer, verify
from tracer.store.run_writer import RunWriter

ROWS = vectors(6, 7)


class Killed(BaseException):
    pass


def append(writer, steps):
    for t in steps:
        writer.append(t, {"time_ns": 0, "finite": True}, {s: v[t] for s, v in ROWS.items()})


@pytest.mark.parametrize("calls", range(12))
def test_a_process_killed_while_a_chunk_begins_leaves_a_readable_run(tmp_path, monkeypatch, calls):
    """The soak found it: killed between two pieces of the second chunk's skeleton."""
    writer = write_run(tmp_path / "run", {s: v[:3] for s, v in ROWS.items()}, close=False, chunk_rows=3)
    left = calls
    real = os.pwrite

    def pwrite(*arguments):
        nonlocal left
        if left == 0:
            monkeypatch.setattr(os, "close", lambda descriptor: None)  # a killed process tidies nothing
            monkeypatch.setattr(chunk_writer.Path, "unlink", lambda *a, **k: None)
            raise Killed
        left -= 1
        return real(*arguments)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(Killed):
        append(writer, (3, 4, 5))
    monkeypatch.undo()
    writer._lock.release()
    found = Trace(tmp_path / "run")
    assert found.step_count >= 3
    assert verify(tmp_path / "run") == []
    after = RunWriter(tmp_path / "run", manifest(), resume_at=found.last_step + 1)
    after.append(found.last_step + 1, {"time_ns": 0, "finite": True}, {s: v[5] for s, v in ROWS.items()})
    after.close("finished")
    assert Trace(tmp_path / "run").step_count == found.step_count + 1
    assert verify(tmp_path / "run") == []
