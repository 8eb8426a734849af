"""Steps that waited together are written together: the same files, the same guarantees."""

import os

import numpy as np
import pytest

from tests.by_hand import manifest, vectors
from tracer.errors import UsageError
from tracer.store import Trace, chunk_writer, verify
from tracer.store.files import PIECE, pwrite_rows
from tracer.store.layout import digest
from tracer.store.run_writer import RunWriter, Step

ROWS = vectors(11, 7)


def steps(at):
    """Every third step lacks its probe."""
    rows = [{s: v[t] for s, v in ROWS.items() if s != "h" or t % 3} for t in at]
    return [Step(t, {"time_ns": t, "finite": True}, r) for t, r in zip(at, rows, strict=True)]


def written(path, parts):
    """Files of a run recorded in these parts, in chunks of four steps; those of the vectors and of the records."""
    one = manifest(path.name)
    writer = RunWriter(path, one, chunk_bytes=4 * one.layout.step_bytes)
    for part in parts:
        writer.append_all(steps(part))
    writer.close("finished")
    assert verify(path) == []
    return {p.name: p.read_bytes() for p in path.iterdir() if p.name.startswith("chunk-")}


def test_the_files_are_those_of_one_at_a_time(tmp_path):
    alone = written(tmp_path / "a" / "run", [[t] for t in range(11)])
    assert len(alone) == 6
    assert written(tmp_path / "b" / "run", [range(3), range(3, 11)]) == alone


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize(
    ("count", "size", "offset"), [(20, 100_001, 0), (20, 100_001, PIECE - 7), (1300, 16, 3), (3, 8, 0)]
)
def test_rows_written_together_lie_one_behind_the_other(tmp_path, monkeypatch, count, size, offset, short):
    """Across the borders of pieces, more of them than a system call takes, and where the system takes only some."""
    rows = [np.frombuffer(np.random.default_rng(i).bytes(size), np.uint8) for i in range(count)]
    if short:
        whole = os.pwritev
        monkeypatch.setattr(os, "pwritev", lambda file, parts, at: whole(file, [parts[0][: len(parts[0]) // 2]], at))
    with (tmp_path / "file").open("w+b") as file:
        found = pwrite_rows(file.fileno(), rows, offset, size)
        assert os.pread(file.fileno(), 2 * count * size, offset) == b"".join(rows)
    assert found == [[digest(row)] for row in rows]


def test_a_step_that_does_not_follow_is_refused_with_those_around_it(tmp_path):
    writer = RunWriter(tmp_path / "run", manifest())
    with pytest.raises(UsageError, match="step 4 after step 5"):
        writer.append_all(steps([3, 5, 4]))
    assert writer.last_step is None
    writer.close("finished")


@pytest.mark.parametrize("whole", [0, 1, 2])
def test_a_process_that_dies_while_it_commits_has_acknowledged_what_has_a_whole_commit_record(
    tmp_path, monkeypatch, whole
):
    one = manifest()
    writer = RunWriter(tmp_path / "run", one)
    writer.append_all(steps(range(2)))
    size = one.layout.commit.itemsize

    def dies(descriptor, data, offset):
        if len(data) != 3 * size:
            return write(descriptor, data, offset)
        write(descriptor, data[: whole * size + size // 2], offset)
        raise KeyboardInterrupt

    write = chunk_writer.pwrite
    monkeypatch.setattr(chunk_writer, "pwrite", dies)
    with pytest.raises(KeyboardInterrupt):
        writer.append_all(steps(range(2, 5)))
    assert writer.last_step == 1
    assert Trace(tmp_path / "run").steps.tolist() == list(range(2 + whole))
    assert verify(tmp_path / "run") == []


def test_vectors_that_the_run_does_not_have_are_refused(tmp_path):
    writer = RunWriter(tmp_path / "run", manifest(streams=("x", "g")))
    with pytest.raises(UsageError, match=r"step 1 has vectors \['g', 'h', 'x'\]; the manifest says x, g"):
        writer.append_all(steps([1]))
    writer.close("finished")
