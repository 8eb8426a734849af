"""Compute runs through Dagster in this process: seconds per run, and the UI shows the same as if it had done it."""

import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import dagster as dg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pipeline.abandoned import owner
from pipeline.bodies import Failure
from pipeline.comparison_asset import NAME
from pipeline.definitions import build
from pipeline.executors import execute
from pipeline.instance import opened, register
from tracer.errors import UsageError

SUMMARIES = ("verdicts", "report")
BASES = {"trace", "geometry", "replays", *SUMMARIES}
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}  # failures are told once, below
Progressed = Callable[[str, int, int], None]  # run id, assets tried, assets in all


@dataclass(frozen=True)
class Outcome:
    """What became of one run."""

    run_id: str
    seconds: float
    computed: tuple[str, ...]
    failures: tuple[Failure, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Whether everything that was asked for has been computed."""
        return not self.failures


def materialize(
    run_ids: Iterable[str], selection: Sequence[str] | None = None, progress: Progressed | None = None
) -> list[Outcome]:
    """Compute assets of runs, one run after the other; one that fails does not stop the rest.

    A metric that fails keeps Dagster from computing what gathers the metrics; here ``verdicts`` and ``report`` are then
    computed without it. Where there are new verdicts, all runs are compared again.

    Args:
        run_ids: recorded runs of this home; they become partitions if they are not.
        selection: names of assets; all of them where None.
        progress: called with run id, assets tried so far and assets in all.

    Raises:
        UsageError: there is no such asset.
    """
    run_ids = list(run_ids)
    work = Work.of(build(), selection)
    with opened() as instance:
        register(instance, run_ids)
        outcomes = [_one(work, instance, run_id, progress) for run_id in run_ids]
        if any("verdicts" in outcome.computed for outcome in outcomes):
            # once, whatever the number of runs
            _, failures = _execute(work.job, instance, None, [NAME], lambda _: None)
            outcomes[-1] = replace(outcomes[-1], failures=(*outcomes[-1].failures, *failures))
        return outcomes


def metric_selection(metrics: Sequence[str]) -> tuple[str, ...]:
    """Assets to compute when only these metrics are asked for: they, and what gathers them."""
    return (*metrics, *SUMMARIES)


@dataclass(frozen=True)
class Work:
    """What is computed for each run: Dagster's job, and names of the selected assets."""

    job: dg.JobDefinition
    assets: tuple[str, ...]

    @classmethod
    def of(cls, definitions: dg.Definitions, selection: Sequence[str] | None) -> "Work":
        """The work of a selection; UsageError names an asset that is not there."""
        graph = definitions.resolve_asset_graph()
        names = sorted(key.path[-1] for key in graph.get_all_asset_keys() if graph.get(key).is_partitioned)
        if unknown := sorted(set(selection or ()) - set(names)):
            raise UsageError(f"no metric {', '.join(map(repr, unknown))}. There are: {', '.join(names)}.")
        job = definitions.resolve_implicit_global_asset_job_def()
        return cls(job, tuple(names if selection is None else selection))


def _one(work: Work, instance: dg.DagsterInstance, run_id: str, progress: Progressed | None) -> Outcome:
    started = time.monotonic()
    tried = 0

    def count(event: dg.DagsterEvent) -> None:
        nonlocal tried
        if event.is_step_success or event.is_step_failure:
            tried += 1
            if progress is not None:
                progress(run_id, tried, len(work.assets))

    computed, failures = _execute(work.job, instance, run_id, work.assets, count)
    gathered = [name for name in SUMMARIES if name in work.assets and name not in computed]
    if gathered and failures and not BASES & {failure.asset for failure in failures}:
        again, more = _execute(work.job, instance, run_id, gathered, count)
        computed, failures = computed + again, failures + more
    return Outcome(run_id, time.monotonic() - started, tuple(computed), tuple(failures))


def _execute(
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    run_id: str | None,
    assets: Iterable[str],
    heard: Callable[[dg.DagsterEvent], None],
) -> tuple[list[str], list[Failure]]:
    """One Dagster run of a partition, or of what has none: names of the assets computed, and the failures."""
    events = execute(
        job,
        instance,
        [dg.AssetKey(name) for name in assets],
        run_id=str(uuid.uuid4()),
        tags={**({"dagster/partition": run_id} if run_id else {}), **owner()},
        run_config=QUIET,
        heard=heard,
    )
    computed = [str(event.step_key) for event in events if event.is_step_success]
    return computed, [Failure(str(e.step_key), _reason(e, events)) for e in events if e.is_step_failure]


def _reason(event: dg.DagsterEvent, events: Iterable[dg.DagsterEvent]) -> str:
    """Why a step failed, in the words of who raised it."""
    step = event.step_failure_data
    if step.user_failure_data and step.user_failure_data.description:
        return step.user_failure_data.description
    evaluations = (e.asset_check_evaluation_data for e in events if e.event_type_value == "ASSET_CHECK_EVALUATION")
    failed = [c for c in evaluations if c.asset_key.path[-1] == event.step_key and c.blocking and not c.passed]
    if failed:
        return "\n".join(f"{check.check_name}: {check.description}" for check in failed)
    error = step.error and (step.error.cause or step.error)
    return error.message.strip() if error else "no reason was given"


def materialize_with_progress(console: Console, run_ids: Sequence[str], metrics: Sequence[str] | None) -> list[Outcome]:
    """:func:`materialize` with a bar per run; ``metrics`` restricts it to those and what gathers them."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks = {run_id: bars.add_task(run_id, total=None, start=False) for run_id in run_ids}

        def progress(run_id: str, done: int, total: int) -> None:
            bars.start_task(tasks[run_id])
            bars.update(tasks[run_id], completed=done, total=total)

        return materialize(run_ids, metric_selection(metrics) if metrics else None, progress)
