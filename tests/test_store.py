"""Laws of the files: what is written is read back bit for bit, and damage never passes for data."""

import json
import os
import shutil

import h5py
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.by_hand import flip, flip_in, vectors, write_run
from tracer.errors import FormatError
from tracer.store import Trace, layout, run_writer, runs, trace, verify
from tracer.store.files import PIECE, pwrite_hashed, pwrite_rows
from tracer.store.layout import SLICE_BYTES


def read(path):
    chunks = list(Trace(path).chunks())
    return {s: np.concatenate([c.streams[s] for c in chunks]) for s in Trace(path).streams}


def read_all(path):
    t = Trace(path)
    return list(t.chunks()), t.records()


def forget_verified():
    trace._sound.clear()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.integers(1, 12),
    chunk_rows=st.integers(1, 13),
    sizes=st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(sum),
    dtype=st.sampled_from(["float32", "float64"]),
    streams=st.sampled_from([("x", "g"), ("x", "g", "h")]),
    close=st.booleans(),
)
def test_what_is_written_is_read_back_bit_for_bit(tmp_path, steps, chunk_rows, sizes, dtype, streams, close):
    path = tmp_path / "run"
    shutil.rmtree(path, ignore_errors=True)
    rows = vectors(steps, sum(sizes), dtype, streams)
    at = list(range(5, 5 + 3 * steps, 3))
    writer = write_run(path, rows, at, close, chunk_rows, sizes)
    found = read(path)
    assert all(found[s].tobytes() == rows[s].tobytes() for s in streams)
    t = Trace(path)
    assert t.steps.tolist() == at
    assert t.status == ("closed" if close else "recording")
    records = t.records().to_pylist()
    assert [r["loss"] for r in records] == [1.0 / (1 + i) for i in range(steps)]
    assert [r["lr"] for r in records] == [0.1] * steps
    assert verify(path) == []
    writer.close("finished")


def test_the_digest_names_the_content_however_it_is_cut_and_whether_it_is_sealed(tmp_path):
    rows = vectors(6, 7)
    digests = set()
    for i, (cut, close) in enumerate([(1, True), (4, True), (6, False), (99, True)]):
        writer = write_run(tmp_path / str(i) / "run", rows, close=close, chunk_rows=cut)
        digests.add(Trace(tmp_path / str(i) / "run").digest)
        writer.close("finished")
    rows["g"][3, 2] = np.nextafter(rows["g"][3, 2], np.float32(9))
    write_run(tmp_path / "other" / "run", rows)
    assert len(digests) == 1
    assert Trace(tmp_path / "other" / "run").digest not in digests


def test_a_partly_filled_chunk_is_sealed_without_its_empty_rows(tmp_path):
    rows = vectors(5, 4000, streams=("x", "g"))
    write_run(tmp_path / "run", rows, chunk_rows=500, sizes=(4000,))
    assert Trace(tmp_path / "run").bytes < 1.3 * 5 * 2 * 4000 * 4


def test_ordinary_tools_open_the_files(tmp_path):
    rows = vectors(5, 7)
    write_run(tmp_path / "run", rows)
    with h5py.File(tmp_path / "run" / "chunk-000000.h5") as file:
        assert np.array_equal(file["g"][...], rows["g"])
        assert file["commit"]["step"].tolist() == [1, 2, 3, 4, 5]
    assert pa.ipc.open_file(tmp_path / "run" / "chunk-000000.arrow").read_all()["step"].to_pylist() == list(range(5))


def test_streams_begin_on_a_page_and_rows_are_views_of_the_file(tmp_path):
    write_run(tmp_path / "run", vectors(40, 7))
    chunk = next(Trace(tmp_path / "run").chunks())
    assert all(
        v.ctypes.data % 4096 == 0 and not v.flags.owndata and not v.flags.writeable for v in chunk.streams.values()
    )


def test_a_row_longer_than_a_slice_is_hashed_slice_by_slice(tmp_path):
    size = SLICE_BYTES // 8 + 5
    rows = vectors(2, size, "float64", ("x",))
    write_run(tmp_path / "run", rows, sizes=(size,))
    chunk = next(Trace(tmp_path / "run").chunks())
    assert chunk.commits["hashes"].shape == (2, 1, 2)
    assert np.array_equal(chunk.x, rows["x"])


def test_an_absent_stream_is_absent_not_zero(tmp_path):
    rows = vectors(4, 7)
    write_run(tmp_path / "run", rows, without={"h": (0, 2)})
    chunk = next(Trace(tmp_path / "run").chunks())
    assert chunk.has["h"].tolist() == [False, True, False, True]
    assert Trace(tmp_path / "run").records()["has_h"].to_pylist() == [False, True, False, True]


def test_a_run_that_is_being_recorded_can_be_read(tmp_path):
    writer = write_run(tmp_path / "run", rows := vectors(5, 7), close=False, chunk_rows=3)
    reader = Trace(tmp_path / "run")
    assert (reader.status, reader.step_count) == ("recording", 5)
    assert np.array_equal(read(tmp_path / "run")["x"], rows["x"])
    writer.close("finished")
    assert Trace(tmp_path / "run").status == "closed"


def test_an_empty_run_is_a_run(tmp_path):
    write_run(tmp_path / "run", {s: v[:0] for s, v in vectors(1, 7).items()})
    t = Trace(tmp_path / "run")
    assert (t.step_count, t.first_step, t.last_step, list(t.chunks()), t.records().num_rows) == (0, None, None, [], 0)
    assert verify(tmp_path / "run") == []


def test_runs_lists_directories_with_a_manifest(tmp_path):
    write_run(tmp_path / "b", vectors(1, 7))
    write_run(tmp_path / "a", vectors(1, 7))
    (tmp_path / "no-run").mkdir()
    assert [p.name for p in runs(tmp_path)] == ["a", "b"]
    assert runs(tmp_path / "absent") == []


class TestDamage:
    """Every byte a value depends on is covered by a hash or a check."""

    @pytest.fixture
    def run(self, tmp_path):
        write_run(tmp_path / "run", vectors(6, 7), chunk_rows=4)
        return tmp_path / "run"

    def damaged(self, run, name):
        forget_verified()
        found = verify(run)
        assert found, f"damage in {name} went unnoticed"
        assert any(name in str(d) for d in found), found
        with pytest.raises(FormatError):
            read_all(run)

    @pytest.mark.parametrize("name", ["chunk-000000.h5", "chunk-000001.h5"])
    @pytest.mark.parametrize("stream", ["x", "g", "h"])
    def test_a_flipped_bit_in_a_vector_is_found_and_named(self, run, name, stream):
        flip_in(run / name, stream)
        self.damaged(run, name)

    def test_a_flipped_bit_anywhere_is_found_or_changes_nothing(self, run):
        """Every 17th byte of every file, one at a time; tests/test_faults.py flips bits at random."""
        whole = read(run), Trace(run).records(), Trace(run).manifest
        unnoticed = 0
        for name in sorted(os.listdir(run)):
            for at in range(0, os.path.getsize(run / name), 17):
                flip(run / name, at)
                forget_verified()
                try:
                    if not verify(run):
                        unnoticed += 1
                        t = Trace(run)
                        assert t.records().equals(whole[1]), (name, at)
                        assert t.manifest == whole[2], (name, at)
                        assert all(np.array_equal(v, whole[0][s]) for s, v in read(run).items()), (name, at)
                finally:
                    flip(run / name, at)
        forget_verified()
        assert verify(run) == []
        assert unnoticed > 0, "page padding is covered by no hash; if all is found, this test looks at the wrong bytes"

    def test_a_truncated_file_is_found(self, run):
        for name in sorted(os.listdir(run)):
            whole = (run / name).read_bytes()
            for keep in (0, 1, len(whole) // 2, len(whole) - 1):
                (run / name).write_bytes(whole[:keep])
                forget_verified()
                assert verify(run), (name, keep)
            (run / name).write_bytes(whole)

    @pytest.mark.parametrize("name", ["chunk-000000.h5", "chunk-000001.h5", "chunk-000001.arrow", "manifest.json"])
    def test_a_missing_file_is_found(self, run, name):
        (run / name).unlink()
        assert verify(run)

    def test_swapped_chunks_are_found(self, run, tmp_path):
        for suffix in ("h5", "arrow"):
            a, b = run / f"chunk-000000.{suffix}", run / f"chunk-000001.{suffix}"
            os.replace(a, tmp_path / "aside"), os.replace(b, a), os.replace(tmp_path / "aside", b)
        self.damaged(run, "chunk-000001.h5")

    def test_a_chunk_of_another_run_is_found(self, run, tmp_path):
        write_run(tmp_path / "other", vectors(6, 7), chunk_rows=4)
        shutil.copy(tmp_path / "other" / "chunk-000001.h5", run / "chunk-000001.h5")
        self.damaged(run, "chunk-000001.h5")

    def test_a_link_out_of_the_file_is_refused(self, run, tmp_path):
        target = run / "chunk-000000.h5"
        with h5py.File(target) as file:
            arrays = {name: file[name][...] for name in file}
        with h5py.File(tmp_path / "secret.h5", "w") as secret:
            secret["x"] = arrays.pop("x")
        with h5py.File(target, "w", libver="latest") as file:
            file.attrs.update({"lemmata_format": 1, "run_id": "run", "attempt": 1})
            for name, values in arrays.items():
                file[name] = values
            file["x"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "x")
        with pytest.raises(FormatError, match=r"link to elsewhere|is "):
            list(Trace(run).chunks())

    def test_a_format_from_the_future_is_refused_with_advice(self, run):
        body = json.loads((run / "manifest.json").read_text())
        (run / "manifest.json").write_text(json.dumps({**body, "format": 2}))
        with pytest.raises(FormatError, match=r"manifest\.json: field 'format' holds 2.*reads 1"):
            Trace(run)

    def test_an_edited_manifest_is_refused(self, run):
        text = (run / "manifest.json").read_text()
        (run / "manifest.json").write_text(text.replace('"group0.lr"', '"group0.lx"'))
        with pytest.raises(FormatError, match="hash does not match"):
            Trace(run)

    def test_a_directory_that_is_no_run(self, tmp_path):
        with pytest.raises(FormatError, match="not a recorded run"):
            Trace(tmp_path)


class TestOldRecords:
    """A later version may add columns to the step records; runs recorded without them stay readable."""

    @pytest.mark.parametrize("close", [True, False], ids=["sealed", "open"])
    def test_columns_that_a_run_was_recorded_without_are_null(self, tmp_path, monkeypatch, close):
        new = layout.record_schema

        def old(hyperparameters):
            schema = new(hyperparameters)
            return schema.remove(schema.get_field_index("random_scale"))

        monkeypatch.setattr(run_writer, "record_schema", old)
        writer = write_run(tmp_path / "run", vectors(4, 7), close=close)
        monkeypatch.undo()
        table = Trace(tmp_path / "run").records()
        assert table["random_scale"].null_count == 4
        assert table["loss"].to_pylist() == [1.0 / (1 + t) for t in range(4)]
        assert verify(tmp_path / "run") == []
        digest = Trace(tmp_path / "run").digest
        writer.close("finished")
        writer = write_run(tmp_path / "other" / "run", vectors(4, 7), close=close)
        assert Trace(tmp_path / "other" / "run").digest == digest
        writer.close("finished")

    def test_columns_from_the_future_are_refused(self, tmp_path, monkeypatch):
        new = layout.record_schema
        monkeypatch.setattr(run_writer, "record_schema", lambda h: new(h).append(pa.field("mood", pa.float64())))
        write_run(tmp_path / "run", vectors(4, 7))
        with pytest.raises(FormatError, match=r"chunk-000000\.arrow.*unknown columns \['mood'\]"):
            Trace(tmp_path / "run").records()


@pytest.mark.parametrize("size", [1, PIECE, PIECE + 1, SLICE_BYTES, SLICE_BYTES + PIECE + 5])
def test_a_vector_is_hashed_while_it_is_written_slice_by_slice(tmp_path, size):
    data = np.random.default_rng(0).bytes(size)
    with open(tmp_path / "file", "w+b") as file:
        hashes = pwrite_hashed(file.fileno(), data, 7)
        assert os.pread(file.fileno(), size + 9, 0) == bytes(7) + data
    assert hashes == [layout.digest(data[at : at + SLICE_BYTES]) for at in range(0, size, SLICE_BYTES)]


@pytest.mark.parametrize("row_bytes", [8, PIECE // 2, PIECE - 1])
def test_rows_written_together_are_those_written_one_by_one(tmp_path, row_bytes):
    rows = [np.random.default_rng(i).bytes(row_bytes) for i in range(3)]
    with open(tmp_path / "file", "w+b") as file:
        assert pwrite_rows(file.fileno(), rows, 7, row_bytes) == [[layout.digest(row)] for row in rows]
        assert os.pread(file.fileno(), 4 * row_bytes, 7) == b"".join(rows)
        found = pwrite_rows(file.fileno(), [rows[2], None, rows[0]], 7, row_bytes)
        assert found == [[layout.digest(rows[2])], None, [layout.digest(rows[0])]]
        assert os.pread(file.fileno(), 4 * row_bytes, 7) == rows[2] + rows[1] + rows[0], "the one between is left alone"
