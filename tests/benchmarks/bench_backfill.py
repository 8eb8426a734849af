"""A new metric of many runs by the UI's backfill: ``python -m tests.benchmarks.bench_backfill [RUNS] [STEPS] [HOME]``.

Records that many logistic regressions, each with the geometry of the first, unless HOME has them. A real server with
its daemons backfills a metric that was not there before; no daemon may report an error. Also how long the lineage page
takes to open, and the processor time of loading the definitions.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dagster as dg

from pipeline.compute import compute
from pipeline.instance import opened, register
from tests.backfilling import launched, launched_runs
from tests.browser import CHROMIUM, browsing, served
from tests.rerun_homes import OWN
from tracer.store import Trace, home

TICK = 30  # seconds between two looks of the daemon that works on backfills
LOAD = "import time; import pipeline.definitions; print(time.process_time())"


def main(runs: int, steps: int, folder: Path) -> None:
    """Print a line per measurement."""
    os.environ["LEMMATA_HOME"] = str(folder)
    own = folder / "own"
    own.mkdir(exist_ok=True)
    (own / "own.py").unlink(missing_ok=True)
    os.environ["LEMMATA_METRICS"] = str(own)
    names = [f"run-{i:03d}" for i in range(runs)]
    prepare(names, steps)
    name = f"own_{time.time_ns()}"  # new in this home too
    (own / "own.py").write_text(OWN.replace('"own"', f'"{name}"'))
    with served() as address:
        began = time.monotonic()
        done = launched(address, [name], names, patience=1800)
        wall = time.monotonic() - began
        statuses = launched_runs(address, done["id"])
        opens = opening(address) if CHROMIUM.exists() else float("nan")
    said = f"{done['status']} after {wall:.0f} s, up to {TICK} s of it before the first look"
    print(f"one new metric of {runs} runs: {said}")
    print(f"{len(statuses)} Dagster runs: {sorted(set(statuses))}")
    assert done["status"] == "COMPLETED_SUCCESS"
    assert all((home.tables_root() / run / "verdicts" / f"{name}.parquet").is_file() for run in names)
    print(f"lineage page opens in {opens:.1f} s (target 3)")
    loads = [float(subprocess.check_output([sys.executable, "-W", "ignore", "-c", LOAD])) for _ in range(3)]
    print(f"definitions load in {min(loads):.1f} s of processor time (target 3)", flush=True)


def prepare(names: list[str], steps: int) -> None:
    """Record what is not there, compute the geometry of the first run, and give it to all."""
    from tracer.workloads import train

    home.runs_root().mkdir(exist_ok=True)
    for i, name in enumerate(names):
        if not (home.runs_root() / name).is_dir():
            train("logistic", home.runs_root() / name, optimizer=("sgdm", "adamw")[i % 2], steps=steps, seed=i)
    tables = [home.tables_root() / name for name in names]
    if not (tables[0] / "facts.json").is_file():
        assert not compute(names[0], {"geometry": "asked for"}).failures
    for each in tables[1:]:
        if not each.is_dir():  # what a metric costs does not depend on whose geometry it reads
            shutil.copytree(tables[0], each)
    with opened() as instance:
        register(instance, names)
        known = instance.get_materialized_partitions(dg.AssetKey("trace"))
        for name in sorted(set(names) - known):  # else the sensor would compute everything of a run that it finds
            tags = {"dagster/data_version": Trace(home.runs_root() / name).digest}
            instance.report_runless_asset_event(dg.AssetMaterialization("trace", partition=name, tags=tags))


def opening(address: str) -> float:
    """Seconds until the lineage page shows its groups, the second time: the first fetches the UI itself."""
    with browsing(Path(tempfile.gettempdir()) / "failed.png") as page:
        for _ in range(2):
            began = time.monotonic()
            page.goto(f"{address}/asset-groups")
            page.get_by_text("recorded", exact=True).first.wait_for()
            page.get_by_text("comparison", exact=True).first.wait_for()
            took = time.monotonic() - began
    return took


if __name__ == "__main__":
    given = sys.argv[1:]
    count, steps = (int(number) for number in (given + ["200", "200"][len(given) :])[:2])
    if len(given) > 2:
        main(count, steps, Path(given[2]).absolute())
    else:
        with tempfile.TemporaryDirectory(prefix="lemmata-bench-") as made:
            main(count, steps, Path(made))
