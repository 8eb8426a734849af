"""Compute what is stale of many runs: one process or several compute, one reports, and the UI shows it all.

Dagster's own step costs more than most metrics take, so that the whole call is one Dagster run, whose only step
reports each recorded run as it is done. What fails is reported as a failed Dagster run of its own, for that asset and
partition.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import dagster as dg

from analysis.tables import TableStore
from pipeline.abandoned import owner
from pipeline.bodies import Computed, Event, Failure
from pipeline.comparison_asset import NAME as COMPARISON
from pipeline.compute import Graph
from pipeline.definitions import build
from pipeline.failures import QUIET, report_failure
from pipeline.instance import opened, register
from pipeline.pool import Pool
from pipeline.reporting import report
from pipeline.stale import stale
from tracer.errors import LemmataError, UsageError
from tracer.store import home

SUMMARIES = ("verdicts", "report")
Said = Callable[[Computed], None]


@dataclass(frozen=True)
class Outcome:
    """What became of one run, as :class:`pipeline.materialize.Outcome`."""

    run_id: str
    computed: tuple[str, ...]
    failures: tuple[Failure, ...]

    @property
    def succeeded(self) -> bool:
        """Whether everything that was stale has been computed."""
        return not self.failures


def plan(
    instance: dg.DagsterInstance,
    run_ids: Iterable[str],
    of: Graph,
    metrics: Sequence[str] | None = None,
    every: bool = False,
    expect: Callable[[int], None] = lambda count: None,
) -> dict[str, dict[str, str]]:
    """What is to be computed of each run and why; runs of which nothing is stale are left out.

    Args:
        instance: what its pages show counts too.
        run_ids: runs of this home.
        of: the assets there are.
        metrics: only these, and what gathers them.
        every: what is current too.
        expect: called at each run that is found, with their number so far.

    Raises:
        UsageError: there is no such metric.
    """
    if unknown := sorted(set(metrics or ()) - set(of.nodes)):
        raise UsageError(f"no metric {', '.join(map(repr, unknown))}. There are: {', '.join(sorted(of.nodes))}.")
    wanted = set(of.nodes) if metrics is None else {*metrics, *SUMMARIES}
    reported = reported_versions(instance, of.nodes)
    found: dict[str, dict[str, str]] = {}
    for run_id in run_ids:
        store = TableStore(home.tables_root(), run_id)
        asked = dict.fromkeys(of.nodes, "asked for") if every else None
        reasons = asked or stale(store, of.nodes.values(), reported.get(run_id, {}))
        if due := {name: why for name, why in reasons.items() if name in wanted}:
            found[run_id] = due
            expect(len(found))
    return found


def reported_versions(instance: dg.DagsterInstance, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Version of each asset that the instance knows last, by run and asset; a query per asset, no page is read."""
    tag, event = "dagster/data_version", dg.DagsterEventType.ASSET_MATERIALIZATION
    found: dict[str, dict[str, str]] = {}
    for name in names:
        tags = instance.event_log_storage.get_latest_tags_by_partition(dg.AssetKey(name), event, [tag])
        for run_id, of_run in tags.items():
            found.setdefault(run_id, {})[name] = of_run[tag]
    return found


def rerun(
    run_ids: Iterable[str],
    metrics: Sequence[str] | None = None,
    jobs: int | None = None,
    every: bool = False,
    begun: Callable[[int], None] = lambda count: None,
    said: Said = lambda done: None,
) -> list[Outcome]:
    """Compute what is stale of these runs, each by itself: one that fails neither blocks nor hides the others.

    Args:
        run_ids: recorded runs, or runs of which only tables are here; they become partitions if they are not.
        metrics: only these, and what gathers them.
        jobs: computing processes; 1 computes here. As many as cores unless given.
        every: what is current too.
        begun: called with the number of runs of which something is stale.
        said: called with each run when it is done.

    Raises:
        UsageError: there is no such metric.
        KeyboardInterrupt: Ctrl-C; what was done stays and is reported, and no table is left half-written.
    """
    names, definitions = list(run_ids), build()
    of = Graph.of(definitions)
    with opened() as instance, Pool(min(jobs or os.cpu_count() or 1, len(names))) as pool:
        register(instance, names)
        planned = plan(instance, names, of, metrics, every, pool.expect)
        begun(len(planned))
        if not planned:
            return []
        outcomes: list[Outcome] = []
        stopped: list[BaseException] = []

        def reported() -> Iterator[list[Event]]:
            try:
                for done in pool.computed(planned, of):
                    yield done.events
                    outcomes.append(Outcome(done.run_id, tuple(done.assets), tuple(done.failures)))
                    said(done)
            except BaseException as error:
                stopped.append(error)
                raise

        report(instance, reported)
        if stopped:
            raise stopped[0]
        for outcome in outcomes:
            for failure in outcome.failures:
                _report_failure(instance, of, outcome.run_id, failure)
        if any("verdicts" in outcome.computed for outcome in outcomes):
            compare(definitions, instance)
    return sorted(outcomes, key=lambda outcome: names.index(outcome.run_id))


def compare(definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
    """Set all runs of this home against each other again: the asset ``comparison``, which has no partition.

    Raises:
        LemmataError: it could not be computed.
    """
    job = definitions.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey(COMPARISON)],
        run_config=QUIET,
        tags=owner(),
        raise_on_error=False,
    )
    if not result.success:
        data = next(event.step_failure_data for event in result.all_events if event.is_step_failure)
        raise LemmataError(f"{COMPARISON}: {data.error.message.strip() if data.error else 'failed'}")


def _report_failure(instance: dg.DagsterInstance, of: Graph, run_id: str, failure: Failure) -> None:
    """A failed Dagster run of this asset and partition, which says why."""
    report_failure(instance, run_id, failure.asset if failure.asset in of.nodes else "trace", failure.message)
