"""One fault each, at a moment that a seed chooses, and what must be true afterwards."""

import contextlib
import copy
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.by_hand import flip, micro_batches, vectors, write_run
from tests.memory import bounded
from tests.recorded_to_death import steps
from tracer.errors import FormatError
from tracer.store import Trace, trace, verify
from tracer.store.header import PAGE
from tracer.store.layout import digest, seal_record
from tracer.store.manifest import _hash
from tracer.store.run_writer import CHUNK_BYTES

ROOT = Path(__file__).parents[1]
BATCHES = [], ["batches"]
MEMORY = 4 << 20  # bytes that reading a small hostile file may take


def killed_run(path, delay, *options):
    """Record in a process of its own, kill it ``delay`` seconds after its first step; the last step it acknowledged."""
    command = [sys.executable, "-m", "tests.recorded_to_death", str(path), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as child:
        child.stdout.readline()
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        said = child.stdout.read().split(b"\n")[:-1]
    return int(said[-1]) if said else 0


def killed_fork(path, delay, *options):
    """The same in a fork of this process, which saves importing torch each time."""
    heard, say = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(say, 1)
        try:
            for _ in steps(str(path), "batches" in options):
                pass
        finally:
            os._exit(3)
    os.close(say)
    with os.fdopen(heard, "rb") as ears:
        first = ears.readline()
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        said = (first + ears.read()).split(b"\n")[:-1]
    os.waitpid(child, 0)
    return int(said[-1]) if said else 0


def check_acknowledged(path, acknowledged):
    """Every acknowledged step is there, and every step that is there is that of the undisturbed training."""
    found = Trace(path)
    assert found.last_step >= acknowledged, (
        f"{path}: step {acknowledged} was acknowledged, the last is {found.last_step}"
    )
    assert found.steps.tolist() == list(range(found.step_count))
    reference = steps()
    for chunk in found.chunks():
        for row in range(len(chunk.steps)):
            x, g, inputs = next(reference)
            assert np.array_equal(chunk.x[row], x), f"{path}: step {chunk.steps[row]}, x"
            assert np.array_equal(chunk.g[row], g), f"{path}: step {chunk.steps[row]}, g"
            if found.manifest.batches:
                [batch] = found.batches(int(chunk.steps[row]))
                assert np.array_equal(batch.tensors["inputs"], inputs), f"{path}: step {chunk.steps[row]}, minibatch"
    assert found.records()["step"].to_pylist() == found.steps.tolist()
    assert verify(path) == []
    return found


def kill(seed, folder, record=killed_fork):
    """SIGKILL at a random moment; every other run has minibatches."""
    path = folder / f"kill-{seed}"
    found = check_acknowledged(path, record(path, random.Random(seed).uniform(0, 0.6), *BATCHES[seed % 2]))
    assert found.manifest.batches == seed % 2
    assert found.status == "interrupted"
    shutil.rmtree(path)


def full_disk(seed, folder, disk=None):
    """A small file system fills up while a run is recorded: an error in Python, and nothing acknowledged is lost.

    In memory a chunk's room is not reserved and any write may find none; on ext4 a chunk finds its room or none at all.
    """
    disk = disk or ("tmpfs", "ext4")[seed // 2 % 2]
    size = random.Random(seed).randrange(200_000, 2_000_000)
    with small_disk(folder, disk, size) as mount:
        command = [sys.executable, "-m", "tests.recorded_to_death", str(mount / "run"), *BATCHES[seed % 2]]
        done = subprocess.run(command, capture_output=True, cwd=ROOT, timeout=120, check=False)
        assert done.returncode == 1, f"the training process died of signal {-done.returncode}"
        assert b"No space left on device" in done.stderr, done.stderr[-500:]
        said = done.stdout.split(b"\n")[:-1]
        if (mount / "run" / "manifest.json").exists():
            found = check_acknowledged(mount / "run", int(said[-1]) if said else -1)
            ended = found.manifest.ended
            assert ended is None or "No space left" in ended["error"], "the manifest says why, or had no room to"


@contextlib.contextmanager
def small_disk(folder, disk, size):
    """A file system of its own with about ``size`` bytes, mounted while the context lasts."""
    mount = Path(tempfile.mkdtemp(dir=folder))
    if disk == "ext4":
        image = mount.with_suffix(".image")
        image.write_bytes(b"")
        os.truncate(image, size + 300_000)  # its own tables
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, mount], check=True)
    else:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", mount], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", mount], check=True)


def memory(seed, folder):
    """A run of one GB for the first seed, two for the second: recording and verifying it take no more for that."""
    path = folder / f"memory-{seed}"
    found = bounded(path, 1000, 125 * (seed + 1), CHUNK_BYTES)
    print({name: f"{count / 2**30:.2f} GiB" for name, count in found.items()})
    shutil.rmtree(path)


class Flips:
    """Random bit flips and truncations over all files of one run."""

    def __init__(self, folder, close=True):
        self.path = folder / "run"
        write_run(self.path, vectors(6, 7), chunk_rows=4, close=close, batches=micro_batches(6))
        self.rows = self.read()
        self.files = sorted(p for p in self.path.iterdir())

    def read(self):
        found = Trace(self.path)
        chunks = [[(s, v.tobytes()) for s, v in c.streams.items()] for c in found.chunks()]
        batches = [(step, [_bytes(batch) for batch in each]) for step, each in found.batches_by_step()]
        return chunks, found.records().to_pylist(), found.manifest, batches

    def __call__(self, seed, folder=None):
        """One flip or truncation; it is found, or no value depends on those bytes. Returns whether it was found."""
        chance = random.Random(seed)
        file = chance.choice(self.files)
        whole = file.read_bytes()
        try:
            if chance.random() < 0.1:
                file.write_bytes(whole[: chance.randrange(len(whole))])
            else:
                flip(file, chance.randrange(len(whole)), 1 << chance.randrange(8))
            trace._sound.clear()
            damage = verify(self.path)
            if not damage and Trace(self.path).torn:
                return True  # an incomplete last record: its step counts as never acknowledged
            if not damage:
                assert self.read() == self.rows, f"seed {seed}: a changed byte of {file.name} went unnoticed"
            return bool(damage)
        finally:
            file.write_bytes(whole)
            trace._sound.clear()


def _bytes(batch):
    arrays = [*batch.tensors.items(), *(batch.random or {}).items()]
    return replace(batch, tensors=[(n, str(a.dtype), a.shape, a.tobytes()) for n, a in arrays], random=None)


STRANGE = [None, True, -1, 0, 1, 2**31, 2**63, 10**40, 1.5, float("1e308"), "", "..", "../../etc/passwd", "x" * 500]
STRANGE += [[], {}, [[]], {"a": 1}, [1, 2], ["x"], ["g", "x"], "float16", ["h"] * 9]


def mutate(body, chance):
    """A JSON value with one or two places replaced by something strange."""
    body = copy.deepcopy(body)
    for _ in range(chance.randrange(1, 3)):
        place = body
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = chance.choice(keys)
            if isinstance(place[key], dict | list) and place[key] and chance.random() < 0.7:
                place = place[key]
                continue
            if chance.random() < 0.15:
                del place[key]
            else:
                place[key] = copy.deepcopy(chance.choice(STRANGE))  # the second change may go into it
            break
    return body


class Hostile:
    """Manifests, chunk pages and minibatches with a right hash and wrong content: nothing but FormatError, in little
    memory.
    """

    def __init__(self, folder):
        self.path = folder / "run"
        write_run(self.path, vectors(6, 7), chunk_rows=4, batches=micro_batches(6))
        self.manifest = (self.path / "manifest.json").read_bytes()
        self.chunk = self.path / "chunk-000000.h5"
        self.content = self.chunk.read_bytes()
        self.batches = self.path / "chunk-000000.batches"
        self.messages = self.batches.read_bytes()

    def __call__(self, seed, folder=None):
        chance = random.Random(seed)
        chance.choice([self._manifest, self._header, self._noise, self._message])(chance)
        trace._sound.clear()
        tracemalloc.start()
        try:
            with contextlib.suppress(FormatError):
                found = Trace(self.path)
                list(found.chunks()), found.records(), found.digest, found.status
                if found.manifest.batches:
                    list(found.batches_by_step())
            verify(self.path)
            assert tracemalloc.get_traced_memory()[1] < MEMORY, f"seed {seed}: too much memory"
        finally:
            tracemalloc.stop()
            (self.path / "manifest.json").write_bytes(self.manifest)
            self.chunk.write_bytes(self.content)
            self.batches.write_bytes(self.messages)

    def _manifest(self, chance):
        body = json.loads(self.manifest)
        body.pop("xxh3")
        body = mutate(body, chance)
        with contextlib.suppress(ValueError):
            body = {**body, "xxh3": _hash(body)}
        (self.path / "manifest.json").write_text(json.dumps(body))

    def _header(self, chance):
        magic, text, _ = self.content[:PAGE].split(b"\n", 2)
        body = magic + b"\n" + json.dumps(mutate(json.loads(text), chance)).encode() + b"\n"
        page = body + f"{digest(body):016x}\n".encode()
        if len(page) <= PAGE:
            self.chunk.write_bytes(page.ljust(PAGE, b"\0") + self.content[PAGE:])

    def _message(self, chance):
        """Another JSON text in a message, or another place for it; commit table and seal are as they must be."""
        header = json.loads(self.content[:PAGE].split(b"\n", 2)[1])
        layout = Trace(self.path).manifest.layout
        commits = np.frombuffer(self.content, layout.commit, 4, header["commit"]).copy()
        row = chance.choice([0, 1, 3])
        start = 64 if row == 0 else int(commits["batches_end"][row - 1])
        message = self.messages[start : int(commits["batches_end"][row])]
        length = int.from_bytes(message[:8], "little")
        text = json.dumps(mutate(json.loads(message[8 : 8 + length]), chance)).encode()
        room = -(-(8 + length) // 64) * 64
        if len(text) + 8 <= room and chance.random() < 0.9:
            said = len(text) if chance.random() < 0.9 else chance.choice([0, 1, 2**31, 2**63, 2**64 - 1])
            message = said.to_bytes(8, "little") + text.ljust(room - 8, b"\0") + message[room:]
        else:
            commits["batches_end"][row] = chance.choice([0, 64, 2**31, 2**63, 2**64 - 64])
        commits["batches"][row] = digest(message)
        for i, commit in enumerate(commits):
            commits["check"][i] = digest(commit.tobytes()[:-8])
        _, records = np.frombuffer(self.content, "<u8", 4, header["seal"])[1:3]
        content = bytearray(self.content)
        content[header["commit"] : header["commit"] + commits.nbytes] = commits.tobytes()
        seal = seal_record(4, digest(commits.tobytes()), int(records))
        content[header["seal"] : header["seal"] + len(seal)] = seal
        self.chunk.write_bytes(content)
        self.batches.write_bytes(self.messages[:start] + message + self.messages[start + len(message) :])

    def _noise(self, chance):
        for file in (self.path / "manifest.json", self.chunk, self.batches):
            content = bytearray(file.read_bytes())
            for _ in range(chance.randrange(1, 40)):
                content[chance.randrange(len(content))] = chance.randrange(256)
            file.write_bytes(bytes(content[: chance.randrange(1, len(content) + 1)]))


def can_mount(disk="tmpfs"):
    """Whether this process may mount a small file system of this kind."""
    possible = hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("mount") is not None
    if disk == "ext4":
        possible = possible and shutil.which("mkfs.ext4") is not None and Path("/dev/loop-control").exists()
    return possible
