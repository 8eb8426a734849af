"""The usual mistakes of the pipeline: metric files, tables that are behind, the Dagster instance."""

import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl

from analysis.pages.across import CURRENT, NOT_COMPUTED, OUTDATED, UNREADABLE
from analysis.proofs import proofs
from pipeline.abandoned import abandoned
from pipeline.across import gather
from pipeline.definitions import installed, metric_nodes
from pipeline.executors import executor
from pipeline.instance import directory
from pipeline.stale import is_recording
from pipeline.terminal.findings import Finding, Level, few
from pipeline.terminal.sections import guarded
from tracer.errors import UsageError
from tracer.store import home


def examine_pipeline(tables: bool = True) -> list[Finding]:
    """Metrics, tables unless they cannot be reached, and the instance if there is one."""
    good, broken = installed()
    nodes, refused = metric_nodes(good)
    current = {name: good[name] for name in nodes}
    do = "put the file right, or take it away"
    unfit = [Finding("error", "metric", text, do) for text in (broken | refused).values()]
    found = [Finding("ok", "metrics", f"{len(current)} load"), *unfit]
    if tables:
        found += guarded("tables", lambda: _behind(gather(current, proofs()).runs))
    return [*found, *guarded("executor", _settings), *guarded("Dagster instance", _instance)]


def _behind(runs: pl.DataFrame) -> Iterator[Finding]:
    late = runs.filter(pl.col("state") != CURRENT)
    recording = [name for name in late["run_id"] if is_recording(name)]
    if recording:
        yield Finding("ok", "tables", f"{len(recording)} runs are still being recorded: {few(recording)}")
    late = late.filter(~pl.col("run_id").is_in(recording))
    levels: dict[str, Level] = {OUTDATED: "warning", NOT_COMPUTED: "warning"}
    for state, level in levels.items():
        of = late.filter(pl.col("state") == state)
        if len(of):
            says = f"{len(of)} runs are {state}: {few(of['run_id'])}. {of['why'][0]}"
            yield Finding(level, "tables", says, "lemmata materialize --all")
    of = late.filter(pl.col("state") == UNREADABLE)
    for run_id, why in of.select("run_id", "why").iter_rows():
        do = "verify" if "lemmata verify" in why else "materialize"  # the run itself, or tables of it
        yield Finding("error", "tables", f"{run_id} is {UNREADABLE}. {why}", f"lemmata {do} {run_id}")
    if late.is_empty() and not (recording and len(runs) == len(recording)):
        yield Finding("ok", "tables", f"{len(runs) - len(recording)} runs are up to date")


def _settings() -> Iterator[Finding]:
    try:
        executor()
    except UsageError as error:
        yield Finding("error", "executor", str(error), "unset LEMMATA_EXECUTOR, or name another")


def _instance() -> Iterator[Finding]:
    try:
        path = directory()
    except UsageError as error:
        yield Finding("error", "DAGSTER_HOME", str(error), "unset DAGSTER_HOME")
        return
    if os.environ.get("DAGSTER_HOME") and path != home.dagster_home():
        says = f"{path}: not the project's own, {home.dagster_home()}; its runs and settings are those of others"
        yield Finding("warning", "DAGSTER_HOME", says, "unset DAGSTER_HOME, unless you mean it")
        yield from _telemetry(path)
    if not (path / "dagster.yaml").exists() and not (path / "history").exists():
        yield Finding("ok", "Dagster instance", f"{path}: none yet; the first `lemmata materialize` or `ui` makes it")
        return
    try:
        with dg.DagsterInstance.from_config(str(path)) as instance:
            gone = abandoned(instance)
    except Exception as error:  # a damaged database may raise anything
        says = f"{path}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        do = f"move it away; runs and tables are not in it: mv {path} {path}.bad"
        yield Finding("error", "Dagster instance", says, do)
        return
    yield Finding("ok", "Dagster instance", str(path))
    if gone:
        says = f"{len(gone)} Dagster runs belong to processes that are gone: {few(run.run_id[:8] for run in gone)}"
        yield Finding(
            "warning", "abandoned runs", says, "the next `lemmata materialize` or `ui` reports them cancelled"
        )


def _telemetry(path: Path) -> Iterator[Finding]:
    settings = path / "dagster.yaml"
    text = settings.read_text(encoding="utf-8") if settings.is_file() else ""
    if "telemetry" not in text:
        do = f"add to {settings}: telemetry: {{enabled: false}}"
        yield Finding("warning", "telemetry", f"{settings} does not switch it off", do)
