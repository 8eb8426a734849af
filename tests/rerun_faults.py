"""A rerun that is killed, and what must be true afterwards. As a script: rerun two runs of ``$LEMMATA_HOME``."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from pipeline.instance import opened
from pipeline.rerun import rerun
from tests.rerun_homes import few_metrics, record, stale_of, tables
from tracer.store import home

RUNS = ("one", "two")
LONGEST = 2.0  # seconds of a kill after the first asset has begun


class Killed:
    """SIGKILL at a random moment of a rerun; the next one ends with the bytes of one that was never disturbed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with pytest.MonkeyPatch.context() as patch:
            settle(patch, folder / "undisturbed")
            for name in RUNS:
                record(name)
            assert all(outcome.succeeded for outcome in rerun(RUNS, jobs=1))
            self.reference = {name: tables(name) for name in RUNS}

    def __call__(self, seed: int, folder: Path | None = None) -> None:
        """Kill, look at what lies there, rerun, compare."""
        root = self._folder / f"killed-{seed}"
        shutil.copytree(self._folder / "undisturbed" / "runs", root / "runs")
        with pytest.MonkeyPatch.context() as patch:
            settle(patch, root)
            with opened():
                pass  # a Dagster home that is killed while it is made would be another test
            with started() as child:
                assert child.stdout is not None
                child.stdout.readline()
                time.sleep(random.Random(seed).uniform(0, LONGEST))
                child.send_signal(signal.SIGKILL)
            self.check_whole()
            assert all(outcome.succeeded for outcome in rerun(RUNS, jobs=1))
            self.check_same()
        shutil.rmtree(root)

    def check_whole(self) -> None:
        """Every table that can be seen is whole and has the bytes it should have."""
        for name in RUNS:
            for file, content in tables(name).items():
                assert content == self.reference[name][file], f"{name}/{file}: other bytes"
                pl.read_parquet(home.tables_root() / name / file, glob=False)

    def check_same(self) -> None:
        """All tables are there, byte for byte; nothing is stale and no Dagster run counts as running."""
        assert {name: tables(name) for name in RUNS} == self.reference
        assert not any(stale_of(*RUNS).values())
        with opened() as instance:
            assert not [run for run in instance.get_runs() if run.status == dg.DagsterRunStatus.STARTED]


def started() -> "subprocess.Popen[str]":
    """A process that reruns both runs of ``$LEMMATA_HOME``, and says so when it begins."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.rerun_faults"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1], env=os.environ)


def settle(patch: pytest.MonkeyPatch, root: Path) -> None:
    """A home of its own with few metrics."""
    for name in ("LEMMATA_METRICS", "LEMMATA_EXECUTOR", "DAGSTER_HOME"):
        patch.delenv(name, raising=False)
    patch.setenv("LEMMATA_HOME", str(root))
    few_metrics(patch)


def main() -> None:
    """Rerun; the line that is printed is the moment from which a kill is counted."""
    with pytest.MonkeyPatch.context() as patch:
        few_metrics(patch)
        outcomes = rerun(RUNS, jobs=1, begun=lambda count: print(count, flush=True))
        sys.exit(not all(outcome.succeeded for outcome in outcomes))


if __name__ == "__main__":
    main()
