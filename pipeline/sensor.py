"""The sensor: every recorded run becomes a partition, and is computed once its recording is over."""

import json
import os
from contextlib import suppress
from pathlib import Path

import dagster as dg

from pipeline.archives import archived
from pipeline.ranges import RUNS
from tracer.errors import FormatError
from tracer.store import Trace, home, runs

# of one run: in a job per run, what compares all runs would be computed once for each
EVERYTHING = dg.define_asset_job(
    "everything", selection=dg.AssetSelection.all() - dg.AssetSelection.assets("comparison")
)


@dg.sensor(
    job=EVERYTHING,
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Adds a partition for each new run and computes those whose recording is over, new or grown.",
)
def recorded_runs(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Compare what lies under the runs' root with the cursor; only directories that changed are opened."""
    seen: dict[str, str] = json.loads(context.cursor or "{}")
    stamps = {path.name: _stamp(path) for path in runs(home.runs_root())}
    archives = archived().keys() - stamps.keys()
    known = set(context.instance.get_dynamic_partitions(str(RUNS.name)))
    new = sorted((stamps.keys() | archives) - known)
    requests = []
    for run_id, stamp in stamps.items():
        if seen.get(run_id) != stamp:
            if (digest := _ended(home.runs_root() / run_id)) is None:
                continue  # still recording: looked at again next time
            if digest != _computed(context.instance, run_id):
                requests.append(dg.RunRequest(run_key=f"{run_id}:{stamp}", partition_key=run_id))
            seen[run_id] = stamp
    for run_id in sorted(archives - seen.keys()):  # never computed here: restored when its trace is asked for
        if _computed(context.instance, run_id) is None:
            requests.append(dg.RunRequest(run_key=f"{run_id}:archived", partition_key=run_id))
        seen[run_id] = "archived"
    return dg.SensorResult(
        run_requests=requests,
        dynamic_partitions_requests=[RUNS.build_add_request(new)] if new else [],
        cursor=json.dumps({run_id: stamp for run_id, stamp in seen.items() if run_id in stamps or run_id in archives}),
    )


def _stamp(path: Path) -> str:
    """Changes when the run grows; costs one look at the directory, whatever the run's size."""
    facts = []
    with suppress(OSError):  # of one that cannot be looked into, its asset says why
        for entry in os.scandir(path):
            with suppress(FileNotFoundError):  # the writer has renamed it since; the next look sees it
                found = entry.stat()
                facts.append((found.st_size, found.st_mtime_ns))
    return f"{len(facts)}-{sum(size for size, _ in facts)}-{max((time for _, time in facts), default=0)}"


def _ended(path: Path) -> str | None:
    """Digest of a run that nobody records into any more; a damaged run counts as ended, so that its asset says so."""
    try:
        trace = Trace(path)
        return None if trace.status == "recording" else trace.digest
    except FormatError:
        return "damaged"


def _computed(instance: dg.DagsterInstance, run_id: str) -> str | None:
    """Content of the run that was computed last, for instance from the command line."""
    records = dg.AssetRecordsFilter(asset_key=dg.AssetKey("trace"), asset_partitions=[run_id])
    found = instance.fetch_materializations(records, limit=1).records
    tags = found[0].asset_materialization.tags if found and found[0].asset_materialization else None
    return (tags or {}).get("dagster/data_version")
