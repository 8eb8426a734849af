"""``lemmata certify``: train with and without the tracer, in fresh processes, and compare everything bit for bit."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tracer.certificate import Array, Certificate, Difference, first_difference
from tracer.errors import LemmataError, UsageError
from tracer.store.home import resolve_run
from tracer.store.lock import Lock
from tracer.store.manifest import read_manifest, write_manifest
from tracer.store.run_writer import now

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Training:
    """What one training left behind: its last state, one fingerprint a step, and how long it took."""

    state: dict[str, Array]
    steps: list[int]
    seconds: float
    probes: tuple[str, ...]


def certify(
    script: str | os.PathLike[str],
    run: str | os.PathLike[str],
    *,
    seed: int = 0,
    probes: tuple[str, ...] = ("look_back", "look_ahead"),
    say: Say = lambda text: None,
) -> Certificate:
    """Whether the tracer leaves a training as it is; the traced one is kept as ``run``, the result in its manifest.

    ``script`` defines ``train(tracer_for)``. It builds model and optimizer, asks ``tracer_for(model, optimizer,
    **options)`` once for its tracer, and trains; options are those of :class:`tracer.Tracer`. The script is trained
    twice without the tracer (``tracer_for`` then gives a :class:`tracer.Untraced`), because a script that does not
    repeat itself tells nothing, and once with it; where they part, both again up to that step. Each time is a fresh
    process with torch, numpy and Python seeded by ``seed``.

    Args:
        probes: used where the script names none.
        say: told what happens, one short text a stage.

    Raises:
        UsageError: the script is not there, has no ``train``, never asks for a tracer, or the run exists already.
        LemmataError: the training failed; the text holds the end of what it printed.
    """
    path, target = Path(script).absolute(), resolve_run(run)
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed={seed}: expected a whole number from 0 to {2**32 - 1}, for torch, numpy and Python.")
    if not path.is_file():
        raise UsageError(f"{path}: no such script. It is a Python file that defines train(tracer_for).")
    if target.exists():
        raise UsageError(f"{target}: this run is there already and is never overwritten. Choose another name.")
    with tempfile.TemporaryDirectory() as folder:

        def train(what: str, run: Path | None, until: int | None = None) -> _Training:
            say(what)
            return _train(path, Path(folder), {"run": run and str(run), "seed": seed, "probes": probes, "until": until})

        first, second = (train(f"without the tracer, {n} of 2", None) for n in (1, 2))
        found = Certificate(
            verdict="not repeatable",
            script=path.name,
            seed=seed,
            steps=len(first.steps),
            tensors=len(first.state),
            numbers=sum(a.size for a in first.state.values()),
            seconds=(second.seconds, None),
            difference=_between(first, second),
            time=now(),
        )
        if found.difference is not None:
            return found
        watched = train("with the tracer", target)
        found = replace(found, seconds=(second.seconds, watched.seconds), probes=watched.probes, verdict="identical")
        difference = _between(first, watched)
        if difference is not None:
            if difference.step is not None:  # look at that step itself
                until = difference.step
                a, b = train(f"to step {until}", None, until), train("and with", Path(folder) / "run", until)
                difference = first_difference(a.state, b.state, until) or difference
            found = replace(found, verdict="differs", difference=difference)
    _write(target, found)
    return found


def _between(first: _Training, second: _Training) -> Difference | None:
    for step, (a, b) in enumerate(zip(first.steps, second.steps, strict=False)):
        if a != b:
            return first_difference(first.state, second.state, step) or Difference(step, "model", (), "", "", 1)
    if len(first.steps) != len(second.steps):
        return Difference(None, "number of steps", (), float(len(first.steps)), float(len(second.steps)), 1)
    return first_difference(first.state, second.state)


def _train(script: Path, folder: Path, task: dict[str, Any]) -> _Training:
    """Run ``tracer.certified`` in a fresh process and read what it leaves."""
    out = folder / "state.npz"
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tracer.certified", json.dumps({**task, "script": str(script), "out": str(out)})]
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONHASHSEED": str(task["seed"]),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode or not out.is_file():
        end = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        kind = UsageError if done.returncode == 2 else LemmataError
        raise kind(f"{script}: the training ended with code {done.returncode}.\n{end}")
    with np.load(out, allow_pickle=False) as file:
        about = json.loads(str(file["about"]))
        state = {name: file[f"array{i}"] for i, name in enumerate(about["names"])}
    return _Training(state, about["steps"], about["seconds"], tuple(about["probes"]))


def _write(run: Path, certificate: Certificate) -> None:
    lock = Lock.take(run)
    try:
        write_manifest(run, read_manifest(run).with_(certificate=certificate.as_json()))
    finally:
        lock.release()
