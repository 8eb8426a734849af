"""The fixed cost of a recorded step: a model so small that nothing else is left."""

import cProfile
import pstats
import shutil
import threading
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.contenders import Traced, Training
from tests.benchmarks.measure import CONFINES, Session, one_core
from tests.benchmarks.peers import open_peer
from tracer.workloads import workload
from tracer.workloads.training import quiet_machine

ROUNDS, STEPS = 25, 100
TOP = 16
TIMED = "lemmata, its calls timed"


def run(session: Session) -> None:
    """Time, then profile."""
    problem = workload("logistic")
    folder = session.folder / "tiny"
    steps = 5 if session.quick else STEPS
    record = open_peer("torch.save per step", folder / "torch", 31)
    copied = open_peer("a copy in memory", folder / "copy", 31)
    contenders = {
        "no tracer": Training(problem, steps),
        "lemmata": Traced(problem, steps, folder / "run"),
        TIMED: Traced(problem, steps, folder / "timed", timed=True),
        "lemmata, look-back probe": Traced(problem, steps, folder / "probed", probes=("look_back",)),
        "one more forward and backward": Training(problem, steps, extra=True),
        "torch.save per step": Training(problem, steps, record),
        "a copy in memory": Training(problem, steps, copied),
    }
    with quiet_machine(contenders["no tracer"].model, 0):
        turns = {name: contender.turn for name, contender in contenders.items()}
        found = session.take_turns("tiny steps", turns, session.rounds(ROUNDS))
    setting = "logistic, 31 parameters"
    alone, _ = found.pop("no tracer"), found.pop(TIMED)
    for name, seconds in found.items():
        session.add("tiny steps", setting, f"step time, {name} / no tracer", seconds / alone)
        session.add("tiny steps", setting, f"added to a step, {name}", (seconds - alone) * 1e6, unit=" µs")
    calls = np.array(contenders[TIMED].calls[steps:]) * 1e6
    session.add("tiny steps", setting, "in the training thread, lemmata", calls[:, 0], unit=" µs")
    session.add("tiny steps", setting, "in the training thread, lemmata, processor time", calls[:, 1], unit=" µs")
    for contender in contenders.values():
        contender.close()
    if CONFINES:
        _profile(session, folder / "profiled", steps)
    shutil.rmtree(folder)


def _profile(session: Session, path: Path, steps: int) -> None:
    """Where the time goes: the training thread's calls, and the processor time of the writer thread."""
    before = set(threading.enumerate())
    training = Traced(workload("logistic"), steps, path)
    (writer,) = (t for t in threading.enumerate() if t not in before and t.name == "lemmata-writer")
    with quiet_machine(training.model, 0), one_core():
        training.turn()
        begin = _cpu(writer)
        training.turn()
        session.add(
            "tiny steps",
            "logistic, 31 parameters",
            "processor time of the writer thread per step, lemmata",
            [(_cpu(writer) - begin) / steps * 1e6],
            unit=" µs",
        )
        profile = cProfile.Profile()
        profile.enable()
        training.turn()
        profile.disable()
    training.close()
    session.listings.append((f"Tiny steps: the training thread under cProfile, {steps} steps", _ours(profile, steps)))


def _cpu(thread: threading.Thread) -> float:
    assert thread.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def _ours(profile: cProfile.Profile, steps: int) -> str:
    """Functions of this project, the longest first; a profiler makes small functions look slower than they are."""
    lines = [f"{'µs per step':>12} {'of its own':>12}  function"]
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    rows = [
        (together, own, f"{Path(file).name}:{line} {name}")
        for (file, line, name), (_, _, own, together, _) in stats.items()
        if "/tracer/" in file and "/workloads/" not in file
    ]
    for together, own, name in sorted(rows, reverse=True)[:TOP]:
        lines.append(f"{together / steps * 1e6:12.1f} {own / steps * 1e6:12.1f}  {name}")
    return "\n".join(lines)
