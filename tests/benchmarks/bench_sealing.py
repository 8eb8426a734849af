"""How fast steps reach the files, hashed, committed and sealed, beside a bare ``os.write`` of the same bytes."""

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from tests.benchmarks.measure import Session, at_least, at_most
from tests.by_hand import manifest
from tracer.ring import slots_for
from tracer.store.chunk_writer import Rows
from tracer.store.files import sync
from tracer.store.run_writer import CHUNK_BYTES, RunWriter, Step

MEMORY = Path("/dev/shm")
WAITING = Path("/proc/thread-self/schedstat")
PAIRS = 12
SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
TARGETS = {"memory file system": 0.85, "disk": 0.70}
RECORD = {"time_ns": 1, "finite": True, "loss": 1.0, "epoch": 0, "batch": 0, "hyper:group0.lr": 0.1}


class Writing:
    """The same steps, x and g, written by Lemmata and by ``os.write``; whole chunks, so that both end in a sync.

    Args:
        together: steps that are handed over at once.
    """

    def __init__(
        self, folder: Path, size: int, least_bytes: int, chunk_bytes: int = CHUNK_BYTES, together: int = 1
    ) -> None:
        self.together = together
        random = np.random.default_rng(0)
        pool = max(1, min(4, (64 << 20) // (8 * size)))
        self.rows: list[Rows] = [{s: random.standard_normal(size, np.float32) for s in ("x", "g")} for _ in range(pool)]
        self.folder, self.size, self.chunk_bytes = folder, size, chunk_bytes
        per_chunk = max(1, min(4096, chunk_bytes // (8 * size)))
        self.steps = per_chunk * max(1, round(least_bytes / (8 * size * per_chunk)))
        self.cpu: dict[str, list[float]] = {"lemmata": [], "raw": []}
        self.file_bytes = 0

    @property
    def logical_bytes(self) -> int:
        """Bytes of the vectors."""
        return 8 * self.size * self.steps

    def lemmata(self) -> float:
        """Seconds of the training's worth of appends; making and closing the run is not counted, sealing is."""
        run = self.folder / "run"
        writer = RunWriter(run, manifest("run", (self.size,), streams=("x", "g")), self.chunk_bytes)
        begin, cpu = time.perf_counter(), time.thread_time()
        steps = (Step(step, RECORD, rows) for step, rows in enumerate(self._steps()))
        while batch := tuple(islice(steps, self.together)):
            writer.append_all(batch)  # the last one fills its chunk and seals it
        seconds = time.perf_counter() - begin
        self.cpu["lemmata"].append(time.thread_time() - cpu)
        writer.close("finished")
        self.file_bytes = sum(entry.stat().st_size for entry in os.scandir(run))
        shutil.rmtree(run)
        return seconds

    def raw(self) -> float:
        """Seconds of ``os.write`` of the same vectors in the same order, and one sync per chunk's worth."""
        path = self.folder / "raw"
        begin, cpu = time.perf_counter(), time.thread_time()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        written = 0
        for rows in self._steps():
            for row in rows.values():
                view = memoryview(row.view(np.uint8))
                while len(view):
                    view = view[os.write(descriptor, view) :]
            written += 8 * self.size
            if written + 8 * self.size > self.chunk_bytes:
                sync(descriptor)
                written = 0
        sync(descriptor)
        os.close(descriptor)
        seconds = time.perf_counter() - begin
        self.cpu["raw"].append(time.thread_time() - cpu)
        path.unlink()
        return seconds

    def _steps(self) -> Iterator[Rows]:
        return islice(cycle(self.rows), self.steps)


def run(session: Session) -> None:
    """Rate, processor time and size for every vector length; then what the writer does to other threads."""
    places = {"disk": session.folder}
    if MEMORY.is_dir() and os.access(MEMORY, os.W_OK):
        places = {"memory file system": MEMORY, **places}
    for place, root in places.items():
        folder = Path(mkdtemp(prefix="lemmata-bench-", dir=root))
        try:
            for size in (1_000,) if session.quick else SIZES:
                _rate(session, place, folder, size)
            if root != session.folder or len(places) == 1:
                _interpreter(session, place, folder)
        finally:
            shutil.rmtree(folder)


def _rate(session: Session, place: str, folder: Path, size: int) -> None:
    """One step at a time, and as many as wait in a ring on average while the disk is slower than training."""
    for together in (1, slots_for(8 * size) // 2):
        _rate_of(session, place, folder, size, together)


def _rate_of(session: Session, place: str, folder: Path, size: int, together: int) -> None:
    writing = Writing(folder, size, *((1 << 18, 1 << 17) if session.quick else (128 << 20,)), together=together)
    handed = "step by step" if together == 1 else f"{together} steps at a time, as from a ring that is behind"
    setting = f"{place}, d = {size:,}, {handed}"
    pairs = session.rounds(PAIRS)
    found = session.take_turns(f"sealing, {setting}", {"lemmata": writing.lemmata, "raw": writing.raw}, pairs)
    target = 0.75 if size == 10_000 else TARGETS[place]
    session.add("sealing", setting, "rate, lemmata / os.write", found["raw"] / found["lemmata"], at_least(target))
    cpu = {name: np.array(values[-pairs:]) for name, values in writing.cpu.items()}
    session.add("sealing", setting, "processor time, lemmata / os.write", cpu["lemmata"] / cpu["raw"], at_most(1.25))
    if place != "disk" and together == 1:
        share = [writing.file_bytes / writing.logical_bytes]
        session.add("sealing", setting, "file bytes / bytes of the vectors", share, at_most(1.01))


def _interpreter(session: Session, place: str, folder: Path) -> None:
    """A Python thread counts as fast as it can while another writes: for how long does the interpreter make it wait?

    The interpreter hands over every 5 ms at most, which would slow the writer down and hide what it takes, so for this
    measurement it does so every 50 µs. Waiting for a processor is not counted: the kernel says how long that was.
    """
    if not WAITING.exists():
        session.note(f"Without {WAITING}, how long the interpreter is blocked cannot be measured here.")
        return
    writing = Writing(folder, 2_000 if session.quick else 1_000_000, 1 << 18 if session.quick else 256 << 20)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(50e-6)
    try:
        contenders = {
            "nothing": lambda: _blocked(lambda: time.sleep(0.02 if session.quick else 0.2)),
            "lemmata": lambda: _blocked(writing.lemmata),
            "os.write": lambda: _blocked(writing.raw),
        }
        found = session.take_turns("sealing, interpreter", contenders, session.rounds(PAIRS))
    finally:
        sys.setswitchinterval(interval)
    for name, share in found.items():
        setting, target = f"{place}, d = {writing.size:,}", at_most(0.08) if name == "lemmata" else None
        session.add(
            "sealing", setting, f"share of the time a Python thread is blocked by a writer, {name}", share, target
        )


def _blocked(action: Callable[[], object]) -> float:
    """Share of the time in which this thread wanted to count, and neither did nor waited for a processor."""
    other = threading.Thread(target=action)
    other.start()
    before, begin = _ran_or_waited(), time.perf_counter()
    turns = 0
    while other.is_alive():
        for _ in range(500):
            turns += 1
    return 1 - (_ran_or_waited() - before) / (time.perf_counter() - begin)


def _ran_or_waited() -> float:
    running, waiting, _ = WAITING.read_text().split()
    return (int(running) + int(waiting)) * 1e-9
