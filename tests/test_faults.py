"""Kills, full disks, flipped bits and hostile files, a few of each; ``python -m tests.soak`` runs as many as wanted."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import faults
from tests.memory import STATUS, bounded
from tracer.store import Trace


@pytest.mark.parametrize("seed", range(6))
def test_every_acknowledged_step_survives_sigkill(tmp_path, seed):
    faults.kill(seed, tmp_path, faults.killed_run)


def test_so_it_does_at_two_dozen_other_moments():
    command = [sys.executable, "-m", "tests.soak", "kill", "24", "--first", "6"]
    done = subprocess.run(command, cwd=faults.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "kill: 24 faults, 0 failed" in done.stdout


def test_the_command_line_says_where_a_killed_run_ended(tmp_path):
    faults.killed_run(tmp_path / "run", 0.2)
    trace = Trace(tmp_path / "run")
    assert trace.status == "interrupted"
    lemmata = Path(sys.executable).parent / "lemmata"
    said = subprocess.run([lemmata, "show", tmp_path / "run"], capture_output=True, text=True, check=True).stdout
    assert "interrupted" in said
    assert f"last acknowledged step {trace.last_step}" in said, said


@pytest.mark.parametrize("disk", ["tmpfs", "ext4"])
@pytest.mark.parametrize("seed", range(4))
def test_a_full_disk_is_an_error_and_loses_nothing(tmp_path, seed, disk):
    if not faults.can_mount(disk):
        pytest.skip(f"needs the right to mount a small {disk}")
    faults.full_disk(seed, tmp_path, disk)


@pytest.mark.parametrize("close", [True, False], ids=["sealed", "open"])
def test_flipped_bits_and_truncations_are_found_or_change_nothing(tmp_path, close):
    one = faults.Flips(tmp_path, close)
    found = [one(seed) for seed in range(1500)]
    assert 0 < sum(found) < len(found), "padding is covered by no hash, and everything else is"


def test_hostile_files_are_refused_in_little_memory(tmp_path):
    one = faults.Hostile(tmp_path)
    for seed in range(600):
        one(seed)


@pytest.mark.skipif(not STATUS.exists(), reason="the system does not say how much memory was taken")
def test_a_long_run_takes_no_more_memory_than_a_short_one(tmp_path):
    found = bounded(tmp_path / "run", 300, 250, 8 << 20)
    assert found["bytes"] > 20 * (8 << 20)
