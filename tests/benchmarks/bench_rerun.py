"""What a rerun costs: ``python -m tests.benchmarks.bench_rerun [RUNS] [STEPS]``; 200 runs are what it is meant for.

Records that many logistic regressions, reruns everything, then one new metric, in this process; CPU seconds per run.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from pipeline.rerun import rerun
from tests.rerun_homes import OWN
from tracer.store import home

TARGETS = {"everything": 9.0, "one new metric": 0.6}  # CPU seconds a run: 15 minutes and one for 200 runs on 2 cores


def main(runs: int, steps: int) -> None:
    """Print a line per measurement."""
    from tracer.workloads import train

    with tempfile.TemporaryDirectory(prefix="lemmata-bench-") as folder:
        os.environ["LEMMATA_HOME"] = folder
        os.environ["LEMMATA_METRICS"] = f"{folder}/own"
        Path(folder, "own").mkdir()
        names = [f"run-{i:03d}" for i in range(runs)]
        home.runs_root().mkdir()
        for i, name in enumerate(names):
            train("logistic", home.runs_root() / name, optimizer=("sgdm", "adamw")[i % 2], steps=steps, seed=i)
        rerun(names[:1], jobs=1)  # what is made once a process is not counted
        _say("everything", names, rerun_timed(names[1:]))
        Path(folder, "own", "own.py").write_text(OWN)
        _say("one new metric", names, rerun_timed(names))
        _say("nothing", names, rerun_timed(names))


def rerun_timed(names: list[str]) -> tuple[float, int, int]:
    """CPU seconds, runs and assets that were computed."""
    begin = time.process_time()
    outcomes = rerun(names, jobs=1)
    assert all(outcome.succeeded for outcome in outcomes), [outcome.failures for outcome in outcomes]
    return time.process_time() - begin, len(outcomes), sum(len(outcome.computed) for outcome in outcomes)


def _say(what: str, names: list[str], found: tuple[float, int, int]) -> None:
    seconds, runs, assets = found
    target = f" (target {TARGETS[what]})" if what in TARGETS else ""
    each = seconds / (runs or len(names))
    print(f"{what}: {assets} assets of {runs} runs, {seconds:.1f} CPU s, {each:.2f} a run{target}", flush=True)


if __name__ == "__main__":
    main(*[int(given) for given in [*sys.argv[1:], 200, 200][:2]])
