"""SIGKILL in the middle of recording: every acknowledged step reads back bit for bit."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.recorded_to_death import steps
from tracer.store import Trace, verify

ROOT = Path(__file__).parents[1]


def killed_run(path, delay):
    """Record in a process of its own, kill it ``delay`` seconds after its first step; the last step it acknowledged."""
    command = [sys.executable, "-m", "tests.recorded_to_death", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as child:
        child.stdout.readline()
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        said = child.stdout.read().split(b"\n")[:-1]
    return int(said[-1]) if said else 0


@pytest.mark.parametrize("attempt", range(4))
def test_every_acknowledged_step_survives_sigkill(tmp_path, attempt):
    acknowledged = killed_run(tmp_path / "run", random.Random(attempt).uniform(0, 1))
    trace = Trace(tmp_path / "run")
    assert trace.status == "interrupted"
    assert trace.last_step >= acknowledged
    assert trace.steps.tolist() == list(range(trace.step_count))
    reference = steps()
    for chunk in trace.chunks():
        for row in range(len(chunk.steps)):
            x, g = next(reference)
            assert np.array_equal(chunk.x[row], x)
            assert np.array_equal(chunk.g[row], g)
    assert trace.records()["step"].to_pylist() == trace.steps.tolist()
    assert verify(tmp_path / "run") == []
    said = subprocess.run(
        [Path(sys.executable).parent / "lemmata", "show", tmp_path / "run"], capture_output=True, text=True, check=True
    ).stdout
    assert "interrupted" in said
    assert f"last acknowledged step {trace.last_step}" in said, said
