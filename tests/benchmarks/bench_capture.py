"""What recording x and g of every step costs a training, with a core to spare and without one."""

import shutil
from pathlib import Path

import numpy as np
import torch

from tests.benchmarks.contenders import Traced, Training
from tests.benchmarks.measure import CONFINES, Session, at_most, one_core
from tests.benchmarks.peers import PEERS, open_peer
from tracer.errors import UsageError
from tracer.workloads import Workload, workload

ALONE, TRACED, PROBED, EXTRA = "no tracer", "lemmata", "lemmata, look-back probe", "one more forward and backward"
ROUNDS, STEPS = 15, 20  # the last step of a turn is waited for, which training does once in all


def run(session: Session) -> None:
    """Both settings."""
    problem = _workload(session)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _compare(session, problem, "spare core", 1.05)
        if CONFINES:
            with one_core():
                _compare(session, problem, "no spare core", 1.15)
    finally:
        torch.set_num_threads(threads)


def _workload(session: Session) -> Workload:
    problem = workload("mlp" if session.quick else "gpt")
    try:
        problem.examples()
    except UsageError as missing:
        problem = workload("cnn")
        session.note(f"Capture was measured on the `cnn` workload instead of `gpt`: {missing}")
    size = sum(p.numel() for p in problem.build_model(0).parameters())
    session.note(f"Capture trains `{problem.name}`, {size:,} parameters, AdamW, torch on one thread.")
    return problem


def _compare(session: Session, problem: Workload, setting: str, limit: float) -> None:
    folder = session.folder / setting.replace(" ", "-")
    steps = 2 if session.quick else STEPS
    contenders = {
        ALONE: Training(problem, steps),
        TRACED: Traced(problem, steps, folder / "run", timed=True),
        PROBED: Traced(problem, steps, folder / "probed", probes=("look_back",)),
        EXTRA: Training(problem, steps, extra=True),
        **_peers(session, problem, steps, folder),
    }
    turns = {name: contender.turn for name, contender in contenders.items()}
    found = session.take_turns(f"capture, {setting}", turns, session.rounds(ROUNDS))
    for contender in contenders.values():
        contender.close()
    shutil.rmtree(folder)

    alone = found[ALONE]
    for name, seconds in found.items():
        if name not in (ALONE, EXTRA):
            target = at_most(limit) if name == TRACED else None
            session.add("capture", setting, f"step time, {name} / {ALONE}", seconds / alone, target)
    which, whose = (0, "the training thread") if setting == "spare core" else (1, "the process")
    cpu = {name: np.array(contender.cpu[1:])[:, which] for name, contender in contenders.items()}
    session.add("capture", setting, f"processor time of {whose}, {TRACED} / {ALONE}", cpu[TRACED] / cpu[ALONE])
    sums = [float(found[TRACED].sum() / alone.sum())]
    session.add("capture", setting, f"all turns together, {TRACED} / {ALONE}", sums)
    session.add("capture", setting, f"step time, {PROBED} / {EXTRA}", found[PROBED] / found[EXTRA])
    # differences of differences are noisy in one round, so: of the medians
    middle = {name: float(np.median(values)) for name, values in found.items()}
    for kind, m, target in (
        ("price", middle, at_most(1.05)),
        ("price in processor time", {name: float(np.median(values)) for name, values in cpu.items()}, None),
    ):
        price = (m[PROBED] - m[TRACED]) / (m[EXTRA] - m[ALONE])
        session.add("capture", setting, f"{kind} of the probe (with − without) / {EXTRA}", [price], target)
    for name in (TRACED, "a copy in memory"):
        calls = np.array(contenders[name].calls[steps:])  # the first turn warms up
        call = "call in the training thread"
        for kind, values in (("", calls[:, 0]), (" in processor time", calls[:, 1])):
            p50, p99 = np.quantile(values, (0.5, 0.99))
            target = at_most(3) if name == TRACED and not kind else None
            session.add("capture", setting, f"{call}, p99 / p50{kind}, {name}", [p99 / p50], target)
        session.add("capture", setting, f"{call} / step time, {name}", calls[:, 0] / middle[ALONE])


def _peers(session: Session, problem: Workload, steps: int, folder: Path) -> dict[str, Training]:
    size = sum(p.numel() for p in problem.build_model(0).parameters())
    found = {}
    for name in PEERS:
        record = open_peer(name, folder / name.replace(" ", "-"), size)
        if record is None:
            session.note(f"Not installed, so not measured: {name}.")
        else:
            found[name] = Training(problem, steps, record)
    return found
