"""Laws of archives: a run comes back bit for bit, and no damaged, cut or hostile archive passes for one."""

import filecmp
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipeline.terminal.archive_commands import register
from tests.by_hand import flip, flip_in, manifest, vectors, write_run
from tests.training import train
from tracer.errors import FormatError, UsageError
from tracer.store import Trace, frames, runs, trace, verify
from tracer.store.archive import archive
from tracer.store.codec import Planes, Words, pack, unpack
from tracer.store.frames import PREFIX, FrameWriter
from tracer.store.predict import REPLAY
from tracer.store.restore import check_archive, read_head, restore
from tracer.store.run_writer import RunWriter

IN_PLACE = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def special(shape, dtype, seed):
    """Any bits at all, many of them the awkward ones: NaN with a payload, -0.0, infinities, denormals."""
    random = np.random.default_rng(seed)
    unsigned = np.dtype(f"u{np.dtype(dtype).itemsize}")
    bits = random.integers(0, np.iinfo(unsigned).max, shape, unsigned, endpoint=True)
    sign = unsigned.type(1 << (8 * unsigned.itemsize - 1))
    infinity = np.array(np.inf, dtype).view(unsigned)
    awkward = np.array([0, sign, infinity, infinity | sign, infinity | 1, infinity | sign | 5, 1, sign | 3], unsigned)
    return np.where(random.random(shape) < 0.5, random.choice(awkward, shape), bits).view(dtype)


def same_files(a, b):
    names = sorted(os.listdir(a))
    assert sorted(os.listdir(b)) == names
    assert filecmp.cmpfiles(a, b, names, shallow=False)[0] == names


def there_and_back(run, tmp_path):
    file = tmp_path / "one.lemmata"
    file.unlink(missing_ok=True)
    shutil.rmtree(tmp_path / "back", ignore_errors=True)
    archived = archive(run, file)
    assert archived.bytes == file.stat().st_size
    assert check_archive(file) == archived.head
    path = restore(file, tmp_path / "back")
    trace._sound.clear()
    assert path == tmp_path / "back" / run.name
    assert verify(path) == []
    assert Trace(path).digest == Trace(run).digest == archived.head.digest
    return path


@IN_PLACE
@given(
    steps=st.integers(1, 12),
    chunk_rows=st.integers(1, 13),
    size=st.integers(1, 40),
    dtype=st.sampled_from(["float32", "float64"]),
    streams=st.sampled_from([("x",), ("g",), ("g", "h"), ("x", "g"), ("x", "g", "h"), ("x", "h"), ("x", "buffer:m")]),
    seed=st.integers(0, 1 << 30),
    missing=st.sets(st.integers(0, 11)),
    optimizer=st.sampled_from(["", "torch.optim.sgd.SGD"]),
)
def test_any_run_comes_back_bit_for_bit(tmp_path, steps, chunk_rows, size, dtype, streams, seed, missing, optimizer):
    run = tmp_path / "run"
    shutil.rmtree(run, ignore_errors=True)
    rows = {s: special((steps, size), dtype, seed + i) for i, s in enumerate(streams)}
    without = {s: missing if i % 2 else {n + 1 for n in missing} for i, s in enumerate(streams)}
    write_run(run, rows, chunk_rows=chunk_rows, sizes=(size,), without=without, optimizer={"class": optimizer})
    same_files(run, there_and_back(run, tmp_path))


@IN_PLACE
@given(
    dtype=st.sampled_from(["float32", "float64"]),
    count=st.integers(1, 300),
    zeros=st.floats(0, 1),
    seed=st.integers(0, 1 << 30),
)
def test_planes_and_differences_are_undone(dtype, count, zeros, seed):
    words, planes = Words(dtype, count), Planes(dtype, count)
    bits, guess = (special(count, dtype, seed + i).view(words.unsigned) for i in range(2))
    bits = np.where(np.random.default_rng(seed).random(count) < zeros, guess, bits)
    difference, found, back = (np.empty_like(bits) for _ in range(3))
    words.difference(bits, guess, difference)
    raw = memoryview(b"".join(bytes(p) for p in planes.pack(difference, 0)) + b"rest")
    assert bytes(planes.unpack(raw, found)) == b"rest"
    words.add(found, guess, back)
    assert back.tobytes() == bits.tobytes()


def test_vectors_wider_than_a_tile_and_than_a_slice_come_back(tmp_path):
    size = (16 << 20) // 4 + 40_000
    rows = vectors(3, size, "float32", ("x", "g"))
    rows["g"][1, ::3] = 0
    run = tmp_path / "run"
    write_run(run, rows, sizes=(size,), chunk_rows=2, without={"g": (2,)})
    same_files(run, there_and_back(run, tmp_path))


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
def test_points_that_the_optimizer_explains_cost_almost_nothing(tmp_path, optimizer):
    train(optimizer=optimizer, run=tmp_path / "run", steps=60)
    archived = archive(tmp_path / "run")
    assert archived.head.guess == REPLAY
    assert archived.ratio > 1.3
    path = restore(archived.place, tmp_path / "back")
    same_files(tmp_path / "run", path)


def test_the_same_run_gives_the_same_archive(tmp_path):
    write_run(tmp_path / "run", vectors(9, 7), chunk_rows=4)
    archive(tmp_path / "run", tmp_path / "a")
    archive(tmp_path / "run", tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_empty_run_comes_back(tmp_path):
    write_run(tmp_path / "run", {s: v[:0] for s, v in vectors(1, 7).items()})
    same_files(tmp_path / "run", there_and_back(tmp_path / "run", tmp_path))


def test_an_interrupted_run_comes_back_with_every_acknowledged_step_and_stays_interrupted(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.recorded_to_death", str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).resolve().parents[1],
    )
    last = -1
    while last < 40:
        last = int(process.stdout.readline())
    with pytest.raises(UsageError, match="being recorded"):
        archive(tmp_path / "run")
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().split()
    process.wait()
    process.stdout.close()
    path = there_and_back(tmp_path / "run", tmp_path)
    assert Trace(path).status == "interrupted"
    assert Trace(path).last_step >= int(rest[-1] if rest else last)
    assert is_open(path) == is_open(tmp_path / "run"), "between two chunks there is none"


def is_open(path):
    return any(name.endswith(".h5.tmp") for name in os.listdir(path))


@pytest.mark.parametrize("optimizer", ["", "torch.optim.sgd.SGD"])
def test_a_run_that_went_on_from_its_final_point_comes_back_with_both_rows(tmp_path, optimizer):
    rows = vectors(9, 7)
    about = manifest(optimizer={"class": optimizer})
    for first, last in ((0, 4), (4, 8)):
        writer = RunWriter(tmp_path / "run", about, resume_at=first or None)
        for t in range(first, last):
            writer.append(t, {"time_ns": t, "finite": True, "hyper:group0.lr": 0.1}, {s: v[t] for s, v in rows.items()})
        writer.append(last, {"time_ns": last, "finite": True}, {"x": rows["x"][last]})
        writer.close("finished")
    assert Trace(tmp_path / "run").step_count == 9
    same_files(tmp_path / "run", there_and_back(tmp_path / "run", tmp_path))


def test_a_run_that_is_being_recorded_is_refused(tmp_path):
    writer = write_run(tmp_path / "run", vectors(5, 7), close=False)
    with pytest.raises(UsageError, match="being recorded"):
        archive(tmp_path / "run")
    writer.close("finished")
    assert not list(tmp_path.glob("*.lemmata*"))


def test_a_damaged_run_is_refused_and_leaves_nothing(tmp_path):
    write_run(tmp_path / "run", vectors(5, 7))
    flip_in(tmp_path / "run" / "chunk-000000.h5", "g")
    with pytest.raises(FormatError, match="hash does not match"):
        archive(tmp_path / "run")
    assert os.listdir(tmp_path) == ["run"]


def test_nothing_is_overwritten(tmp_path):
    write_run(tmp_path / "run", vectors(5, 7))
    archived = archive(tmp_path / "run")
    whole = (tmp_path / "run.lemmata").read_bytes()
    with pytest.raises(UsageError, match="is there already"):
        archive(tmp_path / "run")
    with pytest.raises(UsageError, match="is there already"):
        restore(archived.place, tmp_path)
    assert (tmp_path / "run.lemmata").read_bytes() == whole
    assert sorted(os.listdir(tmp_path)) == ["run", "run.lemmata"]


def test_a_link_at_the_target_is_not_followed(tmp_path):
    write_run(tmp_path / "run", vectors(5, 7))
    archived = archive(tmp_path / "run")
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="is there already"):
        restore(archived.place, tmp_path / "back")
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_no_run_and_what_is_no_archive(tmp_path):
    with pytest.raises(UsageError, match="no recorded run"):
        archive(tmp_path)
    with pytest.raises(UsageError, match="no such archive"):
        restore(tmp_path / "absent")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(FormatError, match="no archive of lemmata"):
        restore(tmp_path / "text", tmp_path)


def test_a_half_restored_run_is_never_seen(tmp_path):
    write_run(tmp_path / "run", vectors(9, 7), chunk_rows=4)
    archived = archive(tmp_path / "run")
    seen = []
    restore(archived.place, tmp_path / "back", lambda done, total: seen.append(runs(tmp_path / "back")))
    assert seen
    assert not any(seen)
    assert runs(tmp_path / "back") == [tmp_path / "back" / "run"]


def test_a_failure_half_way_leaves_nothing(tmp_path):
    write_run(tmp_path / "run", vectors(9, 7), chunk_rows=4)
    archived = archive(tmp_path / "run")

    def fail(done, total):
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        restore(archived.place, tmp_path / "back", fail)
    with pytest.raises(OSError, match="no more"):
        archive(tmp_path / "run", tmp_path / "second", fail)
    assert os.listdir(tmp_path / "back") == []
    assert sorted(os.listdir(tmp_path)) == ["back", "run", "run.lemmata"]


def test_a_disk_without_room_is_named_before_anything_is_written(tmp_path, monkeypatch):
    write_run(tmp_path / "run", vectors(9, 7))
    archived = archive(tmp_path / "run")
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(100, 50, 50))
    with pytest.raises(UsageError, match=r"need 756 bytes and the disk has 50"):
        restore(archived.place, tmp_path / "back")
    assert not (tmp_path / "back").exists()


class TestUrls:
    def test_an_archive_goes_to_a_url_and_comes_back(self, tmp_path):
        fsspec = pytest.importorskip("fsspec")
        write_run(tmp_path / "run", vectors(9, 7), chunk_rows=4)
        url = f"memory://{tmp_path.name}/run.lemmata"
        archive(tmp_path / "run", url)
        same_files(tmp_path / "run", restore(url, tmp_path / "back"))
        with pytest.raises(UsageError, match="is there already"):
            archive(tmp_path / "run", url)
        with pytest.raises(UsageError, match="no such archive"):
            restore(f"{url}x", tmp_path / "back")
        fsspec.filesystem("memory").rm(f"/{tmp_path.name}/run.lemmata")

    def test_a_failure_half_way_leaves_nothing_at_the_url(self, tmp_path):
        fsspec = pytest.importorskip("fsspec")
        write_run(tmp_path / "run", vectors(9, 7), chunk_rows=4)
        flip_in(tmp_path / "run" / "chunk-000001.h5", "g")
        with pytest.raises(FormatError):
            archive(tmp_path / "run", f"memory://{tmp_path.name}/run.lemmata")
        assert not fsspec.filesystem("memory").exists(f"/{tmp_path.name}/run.lemmata")

    def test_an_unknown_protocol_and_a_missing_package_say_what_to_do(self, tmp_path, monkeypatch):
        pytest.importorskip("fsspec")
        write_run(tmp_path / "run", vectors(2, 7))
        with pytest.raises(UsageError, match="Protocol not known: nowhere"):
            archive(tmp_path / "run", "nowhere://run")
        monkeypatch.setitem(sys.modules, "fsspec", None)
        with pytest.raises(UsageError, match="pip install fsspec"):
            archive(tmp_path / "run", "memory://run")

    def test_restoring_needs_no_seek_and_no_size(self, tmp_path):
        write_run(tmp_path / "run", vectors(9, 7), chunk_rows=4)
        archived = archive(tmp_path / "run")
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        with subprocess.Popen(["sh", "-c", 'cat "$0" > "$1"', archived.place, str(pipe)]):
            path = restore(pipe, tmp_path / "back")
        same_files(tmp_path / "run", path)


@pytest.fixture
def archived(tmp_path):
    """A small archive, and a function that says whether bytes restore to something."""
    write_run(tmp_path / "run", vectors(6, 7), chunk_rows=4, optimizer={"class": "torch.optim.sgd.SGD"})
    file = tmp_path / "run.lemmata"
    archive(tmp_path / "run", file)
    return file


def borders(raw):
    at, found = len(frames.MAGIC), []
    while at < len(raw):
        found.append(at)
        at += PREFIX.size + PREFIX.unpack_from(raw, at)[2]
    return found


def refused(file, tmp_path):
    trace._sound.clear()
    with pytest.raises(FormatError):
        restore(file, tmp_path / "back")
    assert not (tmp_path / "back").exists() or os.listdir(tmp_path / "back") == []


class TestDamage:
    def test_an_archive_cut_anywhere_is_refused(self, archived, tmp_path):
        raw = archived.read_bytes()
        random = np.random.default_rng(0)
        places = {0, 1, len(raw) - 1, *borders(raw), *random.integers(0, len(raw), 60).tolist()}
        for keep in sorted(places):
            archived.write_bytes(raw[:keep])
            refused(archived, tmp_path)

    def test_every_flipped_byte_is_found(self, archived, tmp_path):
        size = archived.stat().st_size
        head = borders(archived.read_bytes())[1]
        for at in {*range(head), *range(head, size, 5), *range(size - 100, size)}:
            flip(archived, at)
            with pytest.raises(FormatError):
                check_archive(archived)
            flip(archived, at)
        assert check_archive(archived).steps == 6

    def test_bytes_behind_the_end_are_found(self, archived, tmp_path):
        archived.write_bytes(archived.read_bytes() + b"\0")
        refused(archived, tmp_path)

    def test_frames_left_out_swapped_or_repeated_are_found(self, archived, tmp_path):
        raw = archived.read_bytes()
        cuts = [*borders(raw), len(raw)]
        parts = [raw[a:b] for a, b in pairwise(cuts)]
        for i in range(len(parts) - 1):
            for other in (parts[:i] + parts[i + 1 :], [*parts[:i], parts[i + 1], parts[i], *parts[i + 2 :]]):
                archived.write_bytes(raw[: cuts[0]] + b"".join(other))
                refused(archived, tmp_path)


def rewritten(raw, change):
    """The archive again with sound hashes, each frame passed through ``change(kind, payload)``."""

    class Sink(bytearray):
        write = bytearray.extend

    sink = Sink()
    writer = FrameWriter(sink)
    at, index = len(frames.MAGIC), 0
    while at < len(raw):
        kind, _, length, _, _ = PREFIX.unpack_from(raw, at)
        payload = raw[at + PREFIX.size : at + PREFIX.size + length]
        at += PREFIX.size + length
        if kind == frames.INDEX:
            index = writer.bytes
        if kind == frames.LAST:
            writer.end(index, frames.END.unpack(payload)[2])
        else:
            writer.write(kind, change(kind, payload))
    return bytes(sink)


def with_json(of, **changes):
    return lambda kind, raw: json.dumps({**json.loads(raw), **changes}).encode() if kind == of else raw


HUGE = 1 << 62
HOSTILE = {
    "a path for a name": with_json(frames.HEAD, run_id="../../etc"),
    "an absolute name": with_json(frames.HEAD, run_id="/tmp/x"),
    "another name": with_json(frames.HEAD, run_id="other"),
    "a name that is a number": with_json(frames.HEAD, run_id=5),
    "huge vectors": with_json(frames.HEAD, parameters=HUGE),
    "large vectors": with_json(frames.HEAD, parameters=1 << 29),
    "no vectors": with_json(frames.HEAD, parameters=0),
    "negative vectors": with_json(frames.HEAD, parameters=-7),
    "other vectors": with_json(frames.HEAD, parameters=8),
    "a fraction": with_json(frames.HEAD, parameters=7.0),
    "many steps": with_json(frames.HEAD, steps=HUGE),
    "fewer steps": with_json(frames.HEAD, steps=5),
    "many chunks": with_json(frames.HEAD, chunks=HUGE),
    "fewer chunks": with_json(frames.HEAD, chunks=1),
    "too many bytes": with_json(frames.HEAD, vector_bytes=HUGE),
    "an unknown guess": with_json(frames.HEAD, guess="oracle"),
    "another guess": with_json(frames.HEAD, guess="line"),
    "an unknown dtype": with_json(frames.HEAD, dtype="object"),
    "another dtype": with_json(frames.HEAD, dtype="float64"),
    "unknown streams": with_json(frames.HEAD, streams=["x", "../g"]),
    "no streams": with_json(frames.HEAD, streams=[]),
    "streams that are a text": with_json(frames.HEAD, streams="xgh"),
    "another digest": with_json(frames.HEAD, digest="0" * 32),
    "another status": with_json(frames.HEAD, status="interrupted"),
    "the future": with_json(frames.HEAD, lemmata_archive=2),
    "a field more": with_json(frames.HEAD, path="/etc/passwd"),
    "deep JSON": lambda kind, raw: b"[" * 100_000 if kind == frames.HEAD else raw,
    "no JSON": lambda kind, raw: b"\xff\xfe" if kind == frames.HEAD else raw,
    "a chunk of many rows": with_json(frames.CHUNK, rows=1 << 16),
    "a chunk of huge rows": with_json(frames.CHUNK, rows=HUGE, steps=HUGE),
    "a chunk number": with_json(frames.CHUNK, number=7),
    "an open chunk": with_json(frames.CHUNK, sealed=False),
    "a huge attempt": with_json(frames.CHUNK, attempt=HUGE),
    "huge records": with_json(frames.CHUNK, record_bytes=HUGE),
    "many records": with_json(frames.CHUNK, record_bytes=1 << 33),
    "no records": with_json(frames.CHUNK, record_bytes=0),
    "an empty manifest": lambda kind, raw: pack(b"") if kind == frames.MANIFEST else raw,
    "another manifest": lambda kind, raw: pack(b'{"format": 1}') if kind == frames.MANIFEST else raw,
    "a manifest that says it is huge": lambda kind, raw: (
        struct.pack("<Q", HUGE) + raw[8:] if kind == frames.MANIFEST else raw
    ),
    "a manifest that says it is short": lambda kind, raw: (
        struct.pack("<Q", 3) + raw[8:] if kind == frames.MANIFEST else raw
    ),
    "zeros for commits": lambda kind, raw: (
        pack(bytes(struct.unpack_from("<Q", raw)[0])) if kind == frames.COMMITS else raw
    ),
    "no commits": lambda kind, raw: pack(b"") if kind == frames.COMMITS else raw,
    "other vectors in a tile": lambda kind, raw: raw[:-1] + b"\1" if kind == frames.TILE else raw,
    "an empty tile": lambda kind, raw: b"" if kind == frames.TILE else raw,
    "a tile of ones": lambda kind, raw: b"\xff" * len(raw) if kind == frames.TILE else raw,
    "a tile of zeros": lambda kind, raw: bytes(len(raw)) if kind == frames.TILE else raw,
    "a long tile": lambda kind, raw: raw + b"\0" if kind == frames.TILE else raw,
    "an index that is a bomb": lambda kind, raw: pack(bytes(100 << 20)) if kind == frames.INDEX else raw,
}


class TestHostile:
    """Archives whose hashes are right and whose content lies."""

    @pytest.mark.parametrize("name", HOSTILE)
    def test_a_lie_is_refused(self, archived, tmp_path, name):
        archived.write_bytes(rewritten(archived.read_bytes(), HOSTILE[name]))
        before = time.perf_counter()
        refused(archived, tmp_path)
        assert time.perf_counter() - before < 20
        assert sorted(p for p in os.listdir(tmp_path) if p != "back") == ["run", "run.lemmata"]

    def test_rewriting_alone_changes_nothing(self, archived):
        raw = archived.read_bytes()
        assert rewritten(raw, lambda kind, payload: payload) == raw

    def test_a_random_lie_is_refused_or_changes_nothing(self, archived, tmp_path):
        raw, random = archived.read_bytes(), np.random.default_rng(0)
        count = len(borders(raw)) - 1
        for _ in range(150):
            left = [int(random.integers(count))]

            def lie(kind, payload, left=left):
                left[0] -= 1
                if left[0] != -1 or not payload:
                    return payload
                changed = bytearray(payload)
                for at in random.integers(0, len(changed), int(random.integers(1, 4))):
                    changed[at] = random.integers(256)
                return bytes(changed)

            archived.write_bytes(rewritten(raw, lie))
            shutil.rmtree(tmp_path / "back", ignore_errors=True)
            try:
                path = restore(archived, tmp_path / "back")
            except FormatError:
                continue
            same_files(tmp_path / "run", path)

    def test_lies_cost_no_memory(self, archived, tmp_path):
        """All of them in a process that may have little more memory than it has after its imports."""
        raw = archived.read_bytes()
        (tmp_path / "lies").mkdir()
        for name, lie in HOSTILE.items():
            (tmp_path / "lies" / name.replace(" ", "-")).write_bytes(rewritten(raw, lie))
        code = f"""
import os, resource
from tracer.errors import FormatError
from tracer.store.restore import restore
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * {resource.getpagesize()} + (400 << 20),) * 2)
for name in sorted(os.listdir({str(tmp_path / "lies")!r})):
    try:
        restore(os.path.join({str(tmp_path / "lies")!r}, name), {str(tmp_path / "back")!r})
    except FormatError:
        continue
    raise SystemExit(name)
print("done")
"""
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert found.stdout == "done\n", found.stdout + found.stderr[-2000:]


@IN_PLACE
@given(st.binary(max_size=60), st.integers(0, 200))
def test_packed_bytes_are_unpacked_or_refused(raw, limit):
    assert unpack(pack(raw), len(raw)) == raw
    for lie in (raw, struct.pack("<Q", limit) + raw):
        try:
            assert len(unpack(lie, limit)) <= limit
        except ValueError:
            continue


def test_a_thread_that_flushes_small_numbers_is_told(archived, tmp_path, monkeypatch):
    if read_head(archived).guess != REPLAY:
        archived.write_bytes(rewritten(archived.read_bytes(), with_json(frames.HEAD, guess=REPLAY)))
    monkeypatch.setattr("tracer.store.restore.is_exact", lambda: False)
    with pytest.raises(UsageError, match="fresh process"):
        restore(archived, tmp_path / "back")


def test_the_commands_archive_and_restore(tmp_path, monkeypatch):
    write_run(tmp_path / "runs" / "run", vectors(9, 7), chunk_rows=4)
    monkeypatch.setenv("LEMMATA_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    register(app)
    found = CliRunner().invoke(app, ["archive", "run"])
    assert found.exit_code == 0, found.output
    assert "9 steps, closed" in found.stdout
    shutil.move(tmp_path / "runs" / "run", tmp_path / "first")
    found = CliRunner().invoke(app, ["restore", "run.lemmata"])
    assert found.exit_code == 0, found.output
    same_files(tmp_path / "first", tmp_path / "runs" / "run")
