"""Laws of the files of minibatches: bit for bit, damage found and named, runs without them as they always were."""

import json
import os
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.by_hand import flip, manifest, micro_batches, same_batches, vectors, write_run
from tests.test_archive import borders, refused, rewritten, same_files, there_and_back
from tests.test_old_files import V1
from tracer.errors import FormatError, UsageError
from tracer.store import Trace, run_writer, trace, verify
from tracer.store.archive import archive
from tracer.store.frames import BATCHES
from tracer.store.header import Header
from tracer.store.manifest import read_manifest, write_manifest
from tracer.store.minibatch import ALIGN, MicroBatch, decode, encode
from tracer.store.restore import check_archive, restore
from tracer.store.run_writer import RunWriter

STEPS = 6


def run_with(path, steps=STEPS, **options):
    kept = micro_batches(steps)
    return kept, write_run(path, vectors(steps, 7), batches=kept, chunk_rows=4, **options)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.integers(1, 9), chunk_rows=st.integers(1, 10), close=st.booleans(), seed=st.integers(0, 1 << 30))
def test_minibatches_are_read_back_bit_for_bit(tmp_path, steps, chunk_rows, close, seed):
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    at = list(range(5, 5 + 3 * steps, 3))
    kept = micro_batches(steps, seed)
    writer = write_run(tmp_path / "run", vectors(steps, 7), at, close, chunk_rows, batches=kept)
    found = Trace(tmp_path / "run")
    assert all(same_batches(found.batches(t), b) for t, b in zip(at, kept, strict=True))
    assert [t for t, _ in found.batches_by_step()] == at
    assert all(same_batches(b, c) for (_, b), c in zip(found.batches_by_step(), kept, strict=True))
    assert [t for t, _ in found.batches_by_step(at[0] + 1, at[-1])] == at[1:]
    assert verify(tmp_path / "run") == []
    writer.close("finished")


def test_every_array_begins_at_a_multiple_of_64_and_padding_is_covered_by_the_hash():
    [[batch]] = micro_batches(1)
    raw = b"".join(bytes(piece) for piece in encode([batch]))
    assert len(raw) % ALIGN == 0
    [found] = decode(raw)
    offset = np.frombuffer(raw, np.uint8).ctypes.data
    assert all((a.ctypes.data - offset) % ALIGN == 0 for a in found.tensors.values() if a.size)
    assert not any(a.flags.writeable for a in found.tensors.values())


def test_a_run_without_minibatches_has_the_bytes_it_always_had(tmp_path):
    """Written by the code of format 1's first day: pages and manifest come out the same when written again."""
    with open(V1 / "closed-run" / "chunk-000000.h5", "rb") as file:
        assert Header.read(file.fileno()).page() == (V1 / "closed-run" / "chunk-000000.h5").read_bytes()[:4096]
    write_run(tmp_path / "run", vectors(4, 7))
    assert sorted(os.listdir(tmp_path / "run")) == ["chunk-000000.arrow", "chunk-000000.h5", "manifest.json"]
    assert "batches" not in json.loads((tmp_path / "run" / "manifest.json").read_text())
    found = Trace(tmp_path / "run")
    assert "batches" not in next(found.chunks()).commits.dtype.names
    with pytest.raises(UsageError, match=r"recorded without minibatches.*record_batches=True.*tensors="):
        found.batches(0)
    assert b'"batches"' not in archive(tmp_path / "run").place.encode()
    assert b'"batches"' not in (tmp_path / "run.lemmata").read_bytes()[:2000]


def test_a_minibatch_that_nobody_asked_for_is_refused(tmp_path):
    writer = write_run(tmp_path / "run", vectors(1, 7), close=False)
    with pytest.raises(UsageError, match="step 1 has a minibatch; the manifest says that none is recorded"):
        writer.append(1, {"time_ns": 0, "finite": True}, {"x": vectors(1, 7)["x"][0]}, encode(micro_batches(1)[0]))
    writer.close("finished")


def test_a_step_that_is_not_there_is_named(tmp_path):
    run_with(tmp_path / "run")
    with pytest.raises(UsageError, match="step 9 is not recorded; the run has 6 steps, 0 to 5"):
        Trace(tmp_path / "run").batches(9)


def test_the_digest_knows_the_minibatches_however_they_are_cut(tmp_path):
    kept, digests = micro_batches(STEPS), set()
    for i, rows in enumerate((1, 4, 99)):
        write_run(tmp_path / str(i) / "run", vectors(STEPS, 7), chunk_rows=rows, batches=kept)
        digests.add(Trace(tmp_path / str(i) / "run").digest)
    assert len(digests) == 1
    write_run(tmp_path / "other" / "run", vectors(STEPS, 7), batches=micro_batches(STEPS, seed=1))
    assert Trace(tmp_path / "other" / "run").digest not in digests


def test_many_minibatches_seal_a_chunk_before_its_vectors_do(tmp_path, monkeypatch):
    monkeypatch.setattr(run_writer, "CHUNK_BYTES", 2000)
    kept = micro_batches(20)
    write_run(tmp_path / "run", vectors(20, 7), batches=kept)
    sizes = [p.stat().st_size for p in sorted((tmp_path / "run").glob("*.batches"))]
    assert len(sizes) > 2
    assert all(2000 <= size < 6000 for size in sizes[:-1])
    assert all(same_batches(Trace(tmp_path / "run").batches(t), b) for t, b in enumerate(kept))


class TestDamage:
    def damaged(self, run, name, where):
        trace._sound.clear()
        found = [str(d) for d in verify(run)]
        assert any(name in d and where in d for d in found), found
        with pytest.raises(FormatError, match=name):
            list(Trace(run).batches_by_step())

    @pytest.mark.parametrize("close", [True, False], ids=["sealed", "open"])
    def test_every_flipped_byte_is_found_and_its_step_named(self, tmp_path, close):
        _, writer = run_with(tmp_path / "run", close=close)
        last = tmp_path / "run" / ("chunk-000001.batches" + ("" if close else ".tmp"))
        ends = [64, *next(iter([*Trace(tmp_path / "run").chunks()][1:])).commits["batches_end"].tolist()]
        for at in {*range(64), *range(64, last.stat().st_size, 11), last.stat().st_size - 1}:
            flip(last, at)
            where = "file" if at < 64 else f"step {4 + int(np.searchsorted(ends, at, side='right')) - 1}, minibatch"
            self.damaged(tmp_path / "run", last.name, where)
            flip(last, at)
        assert verify(tmp_path / "run") == []
        writer.close("finished")

    def test_a_file_that_is_missing_cut_off_or_longer_is_named(self, tmp_path):
        run_with(tmp_path / "run")
        file = tmp_path / "run" / "chunk-000000.batches"
        whole = file.read_bytes()
        for content in (whole[:-1], whole[:64], whole[:3], b"", whole + b"\0"):
            file.write_bytes(content)
            self.damaged(tmp_path / "run", file.name, "file")
        file.unlink()
        self.damaged(tmp_path / "run", file.name, "file")

    def test_swapped_files_are_found(self, tmp_path):
        run_with(tmp_path / "run", steps=8)
        a, b = (tmp_path / "run" / f"chunk-00000{i}.batches" for i in (0, 1))
        a_bytes, b_bytes = a.read_bytes(), b.read_bytes()
        a.write_bytes(b_bytes), b.write_bytes(a_bytes)
        self.damaged(tmp_path / "run", "chunk-000000.batches", "chunk-000000.batches")

    def test_a_run_that_is_damaged_is_not_archived(self, tmp_path):
        run_with(tmp_path / "run")
        flip(tmp_path / "run" / "chunk-000001.batches", 200)
        with pytest.raises(FormatError, match=r"chunk-000001\.batches.*minibatch of step 4 does not match"):
            archive(tmp_path / "run")
        assert os.listdir(tmp_path) == ["run"]


LIES = {
    "no list": {},
    "no micro-batch": [3],
    "a field more": lambda head: {**head, "more": 1},
    "a field less": lambda head: {k: v for k, v in head.items() if k != "training"},
    "a weight that is a text": lambda head: {**head, "weight": "much"},
    "a weight that is huge": lambda head: {**head, "weight": 10**400},
    "a flag that is a number": lambda head: {**head, "training": 1},
    "names that are numbers": lambda head: {**head, "exceptions": [1]},
    "no dtype that is known": lambda head: with_array(head, dtype="object"),
    "a dtype that is a list": lambda head: with_array(head, dtype=[]),
    "a negative shape": lambda head: with_array(head, shape=[-3, -2]),
    "a huge shape": lambda head: with_array(head, shape=[1 << 61, 8]),
    "a shape without end": lambda head: with_array(head, shape=[1] * 10_000),
    "a shape of fractions": lambda head: with_array(head, shape=[2.0]),
    "a shape of flags": lambda head: with_array(head, shape=[True]),
    "a huge empty shape": lambda head: with_array(head, shape=[0, *[(1 << 62) - 1] * 3]),
    "a smaller shape": lambda head: with_array(head, shape=[]),
    "an array twice": lambda head: {**head, "tensors": head["tensors"] * 2},
}


def with_array(head, **changes):
    return {**head, "tensors": [{**head["tensors"][0], **changes}, *head["tensors"][1:]]}


@pytest.mark.parametrize("name", LIES)
def test_a_message_that_lies_is_refused(name):
    batch = MicroBatch({"inputs": np.zeros((40, 3))}, {"inputs": "float64"})
    raw = b"".join(bytes(piece) for piece in encode([batch]))
    length = int.from_bytes(raw[:8], "little")
    heads, arrays = json.loads(raw[8 : 8 + length]), raw[-(-(8 + length) // ALIGN) * ALIGN :]
    lie = LIES[name]
    text = json.dumps([lie(heads[0])] if callable(lie) else lie).encode()
    start = len(text).to_bytes(8, "little") + text
    with pytest.raises(ValueError):  # noqa: PT011  which text, does not matter here
        decode(start + bytes(-len(start) % ALIGN) + arrays)
    assert same_batches(decode(raw), [batch])


@pytest.mark.parametrize("raw", [b"\xff" * 8, b"\xff" * 64, bytes(64), b"\1" + bytes(63), b"[" * 4096, b"x"])
def test_bytes_that_are_no_message_are_refused(raw):
    with pytest.raises(ValueError):  # noqa: PT011
        decode(raw)


class TestGoingOn:
    def go_on(self, path, at, until, kept, **fields):
        rows = vectors(until, 7)
        writer = RunWriter(path, manifest(path.name, batches=True, **fields), resume_at=at)
        for t in range(at, until):
            writer.append(t, {"time_ns": t, "finite": True}, {s: v[t] for s, v in rows.items()}, encode(kept[t]))
        writer.close("finished")

    def test_a_run_goes_on_with_its_minibatches(self, tmp_path):
        kept, _ = run_with(tmp_path / "run")
        more = micro_batches(9)
        self.go_on(tmp_path / "run", STEPS, 9, more)
        found = Trace(tmp_path / "run")
        assert all(same_batches(found.batches(t), (kept + more[STEPS:])[t]) for t in range(9))
        assert verify(tmp_path / "run") == []

    def test_a_run_without_them_does_not_go_on_with_them(self, tmp_path):
        write_run(tmp_path / "run", vectors(4, 7))
        with pytest.raises(UsageError, match="its batches are not those of record_batches="):
            self.go_on(tmp_path / "run", 4, 5, micro_batches(5))

    @pytest.mark.parametrize("stage", ["torn", "renamed"])
    def test_what_a_kill_left_open_is_read_sealed_and_cut(self, tmp_path, stage):
        """``torn``: half a message behind the last step. ``renamed``: killed in sealing, before the vectors' rename."""
        kept, writer = run_with(tmp_path / "run", close=False)
        writer._lock.release()
        file = tmp_path / "run" / "chunk-000001.batches.tmp"
        size = file.stat().st_size
        if stage == "torn":
            file.write_bytes(file.read_bytes() + b"half a message")
        else:
            file.rename(file.with_suffix(""))
        assert all(same_batches(Trace(tmp_path / "run").batches(t), b) for t, b in enumerate(kept))
        assert verify(tmp_path / "run") == []
        same = there_and_back(tmp_path / "run", tmp_path)
        assert (same / file.name).stat().st_size == size, "bytes of a step that was never acknowledged do not return"
        assert all(same_batches(Trace(same).batches(t), b) for t, b in enumerate(kept))
        self.go_on(tmp_path / "run", STEPS, STEPS + 1, micro_batches(STEPS + 1))
        assert file.with_suffix("").stat().st_size == size
        assert all(same_batches(Trace(tmp_path / "run").batches(t), b) for t, b in enumerate(kept))
        assert verify(tmp_path / "run") == []
        assert not list((tmp_path / "run").glob("*.tmp"))

    def test_a_trace_opened_before_a_chunk_is_sealed_still_reads(self, tmp_path):
        kept, writer = run_with(tmp_path / "run", close=False)
        early = Trace(tmp_path / "run")
        assert early.step_count == STEPS
        writer.close("finished")
        assert same_batches(early.batches(5), kept[5])


class TestArchive:
    @pytest.fixture
    def archived(self, tmp_path):
        run_with(tmp_path / "run")
        return shutil.copy(archive(tmp_path / "run").place, tmp_path / "one.lemmata")

    def test_files_come_back_bit_for_bit(self, tmp_path):
        run_with(tmp_path / "run")
        same_files(tmp_path / "run", there_and_back(tmp_path / "run", tmp_path))

    def test_a_file_longer_than_a_frame_comes_back(self, tmp_path):
        big = MicroBatch({"inputs": np.random.default_rng(0).random((3, 200_000))}, {"inputs": "float64"})
        write_run(tmp_path / "run", vectors(2, 7), batches=[[big], [big]])
        same_files(tmp_path / "run", there_and_back(tmp_path / "run", tmp_path))

    def test_every_flipped_byte_is_found(self, archived):
        size = archived.stat().st_size
        for at in range(0, size, 17):
            flip(archived, at)
            with pytest.raises(FormatError):
                check_archive(archived)
            flip(archived, at)
        assert check_archive(archived).batches

    def test_an_archive_cut_anywhere_is_refused(self, archived, tmp_path):
        raw = archived.read_bytes()
        for keep in borders(raw):
            archived.write_bytes(raw[:keep])
            refused(archived, tmp_path)

    @pytest.mark.parametrize("lie", ["shorter", "longer", "other", "none", "not said"])
    def test_a_lie_about_minibatches_is_refused(self, archived, tmp_path, lie):
        from tracer.store.codec import pack, unpack

        def change(kind, raw):
            if kind == b"HEAD" and lie == "not said":
                return json.dumps({k: v for k, v in json.loads(raw).items() if k != "batches"}).encode()
            if kind != BATCHES or lie == "not said":
                return raw
            plain = unpack(memoryview(raw), 4 << 20)
            other = {"shorter": plain[:-64], "longer": plain + bytes(64), "none": b""}
            return pack(other.get(lie, plain[:-1] + bytes([plain[-1] ^ 1])))

        archived.write_bytes(rewritten(archived.read_bytes(), change))
        with pytest.raises(FormatError):
            check_archive(archived)
        refused(archived, tmp_path)

    def test_the_manifest_of_a_restored_run_says_that_it_has_them(self, archived, tmp_path):
        path = restore(archived, tmp_path / "back")
        assert read_manifest(path).batches
        write_manifest(path, read_manifest(path))
        assert verify(path) == []
