"""What a rerun costs: ``python -m tests.benchmarks.bench_rerun [RUNS] [STEPS] [JOBS] [RECORDED] [--page]``.

Records logistic regressions with the look-back probe, reruns everything, then one new metric, then nothing, by the
functions behind ``lemmata rerun --stale --jobs JOBS``. With RECORDED fewer than RUNS, the tables of the first run are
copied under the other names, as tables of archived runs are, and the instance is told of them: "everything" is then
of the recorded runs alone. Prints wall-clock time and processor time, that of the
computing processes included; on a machine that others use only the latter means anything, and on two quiet cores the
former is about half of it. It ends with the time in which the definitions load, and with ``--page`` the time in which
the lineage page opens in a headless browser with all these runs. 200 runs are what it is meant for.
"""

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dagster as dg

from pipeline.bodies import Event, changed
from pipeline.compute import compute, graph
from pipeline.instance import opened, register
from pipeline.reporting import report
from pipeline.rerun import rerun
from tests.browser import browsing, served
from tests.rerun_homes import OWN
from tracer.store import home

RUNS, STEPS, JOBS = 200, 200, 2  # and all of them recorded
WITHIN = {"everything": 900.0, "one new metric": 60.0}  # seconds for 200 runs on two cores
LOADED, OPENED = 3.0, 3.0  # seconds
TIMES = 5  # how often a page is opened
LOAD = "import time; import pipeline.definitions; print(time.process_time())"


def main(runs: int, steps: int, jobs: int, recorded: int, page: bool) -> None:
    """Print a line per measurement."""
    from tracer.workloads import train

    with tempfile.TemporaryDirectory(prefix="lemmata-bench-") as folder:
        os.environ["LEMMATA_HOME"] = folder
        os.environ["LEMMATA_METRICS"] = f"{folder}/own"
        Path(folder, "own").mkdir()
        names = [f"run-{i:03d}" for i in range(runs)]
        home.runs_root().mkdir()
        for i, name in enumerate(names[:recorded]):
            train("logistic", home.runs_root() / name, optimizer=("sgdm", "adamw")[i % 2], steps=steps, seed=i)
        _rerun("everything", names[:recorded], jobs)
        _copy(names[0], names[recorded:])
        Path(folder, "own", "own.py").write_text(OWN)
        _rerun("one new metric", names, jobs)
        _rerun("nothing", names, jobs)
        loading = [float(subprocess.check_output([sys.executable, "-c", LOAD], text=True)) for _ in range(3)]
        print(f"definitions load: {min(loading):.2f} CPU s, the best of {len(loading)} (within {LOADED:g})", flush=True)
        if page:
            _page(Path(folder))


def _copy(run_id: str, names: list[str]) -> None:
    """The tables of a run under other names, and in the instance all that was reported of them."""
    done = compute(run_id, dict.fromkeys(graph().nodes, "asked for")) if names else None
    for name in names:
        shutil.copytree(home.tables_root() / run_id, home.tables_root() / name)
    with opened() as instance:
        register(instance, names)
        if done is not None:
            report(instance, lambda: ([_of(name, event) for event in done.events] for name in names))


def _of(run_id: str, event: Event) -> Event:
    if isinstance(event, dg.AssetMaterialization):
        return dg.AssetMaterialization(event.asset_key, partition=run_id, metadata=event.metadata, tags=event.tags)
    return changed(event, partition=run_id)


def _rerun(what: str, names: list[str], jobs: int) -> None:
    began, used = time.monotonic(), _processor_time()
    outcomes = rerun(names, jobs=jobs)
    wall, cpu = time.monotonic() - began, _processor_time() - used
    assert all(outcome.succeeded for outcome in outcomes), [outcome.failures for outcome in outcomes]
    assets = sum(len(outcome.computed) for outcome in outcomes)
    within = f" (within {WITHIN[what] * len(names) / RUNS:.0f} s on two cores)" if what in WITHIN else ""
    print(
        f"{what}: {assets} assets of {len(outcomes)} runs in {wall:.1f} s{within}; {cpu:.1f} CPU s, "
        f"{cpu / len(names):.2f} a run, half of it {cpu / 2:.0f}",
        flush=True,
    )


def _processor_time() -> float:
    kinds = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, kinds))


def _page(folder: Path) -> None:
    with served() as address, browsing(folder / "failed.png") as page:
        page.goto(f"{address}/asset-groups")  # loads the application's scripts, which a browser then keeps
        page.get_by_text("geometry", exact=True).first.wait_for()
        opening = []
        for _ in range(TIMES):
            began = time.monotonic()
            page.goto(f"{address}/asset-groups")
            page.get_by_text("geometry", exact=True).first.wait_for()
            page.get_by_text(re.compile(r"^(report|verdicts)$")).first.wait_for()
            opening.append(time.monotonic() - began)
    shown = ", ".join(f"{seconds:.2f}" for seconds in opening)
    print(
        f"lineage page opens: {sorted(opening)[TIMES // 2]:.2f} s, the median of {shown} (within {OPENED:g})",
        flush=True,
    )


if __name__ == "__main__":
    given = [int(each) for each in sys.argv[1:] if each != "--page"]
    runs, steps, jobs = [*given[:3], *(RUNS, STEPS, JOBS)[len(given) :]]
    main(runs, steps, jobs, given[3] if len(given) > 3 else runs, "--page" in sys.argv)
