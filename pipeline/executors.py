"""Where steps run: in this process, in processes of this machine, or on a dask cluster. One setting says.

``LEMMATA_EXECUTOR`` is ``in_process`` (the default: a step costs milliseconds), ``multiprocess``, ``dask`` (a cluster
on this machine, for as long as a Dagster run lasts), ``dask:tcp://HOST:PORT`` (a scheduler that is there), or
``module:name`` of any other executor. What is computed does not depend on it, to the last bit.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.execution.api import execute_run_iterator

from analysis.vectors.sharing import Workers
from pipeline.settings import DASK, SETTING, dask_address, setting
from tracer.errors import LemmataError, UsageError

OF_DAGSTER: dict[str, dg.ExecutorDefinition] = {
    "in_process": dg.in_process_executor,
    "multiprocess": dg.multiprocess_executor,
}
EXPECTED = "in_process, multiprocess, dask, dask:ADDRESS of a scheduler, or module:name of a Dagster executor"


def executor() -> dg.ExecutorDefinition:
    """The executor that ``$LEMMATA_EXECUTOR`` names.

    Raises:
        UsageError: it names none, or one that is not installed.
    """
    name = setting()
    if name in OF_DAGSTER:
        return OF_DAGSTER[name]
    if (address := dask_address(name)) is not None:
        return _dask(name, address)
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"{SETTING}={name}: expected {EXPECTED}; found none of them ({error}).") from None
    if not isinstance(found, dg.ExecutorDefinition):
        raise UsageError(f"{SETTING}={name}: expected a Dagster executor, found {type(found).__name__}.")
    return found


def _dask(name: str, address: str) -> dg.ExecutorDefinition:
    if address and "://" not in address:
        raise UsageError(
            f"{SETTING}={name}: expected the address of a dask scheduler such as dask:tcp://10.0.0.5:8786, found "
            f"{address!r}. Write it out, or {SETTING}=dask for a cluster on this machine."
        )
    need_dask(name)
    from pipeline.dask_executor import dask_executor

    return dask_executor.configured({"address": address}, name=DASK)


@contextmanager
def sharers(size: int) -> Iterator[Workers | None]:
    """Who shares the geometry of a run with so many bytes of vectors; see :mod:`pipeline.workers`."""
    if dask_address(setting()) is None:  # without it, the extra may be missing
        yield None
        return
    need_dask(setting())
    from pipeline.workers import workers

    with workers(size) as found:
        yield found


def need_dask(name: str) -> None:
    """Raise :class:`UsageError` unless the extra ``dask`` is installed."""
    try:
        importlib.import_module("dagster_dask")
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{SETTING}={name}: expected the extra dask, found no module named {error.name!r}. "
            f"Install it: pip install 'lemmata[dask]', or unset {SETTING}."
        ) from None


def execute(
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    assets: Sequence[dg.AssetKey],
    run_id: str,
    tags: Mapping[str, str],
    run_config: Mapping[str, object],
    heard: Callable[[dg.DagsterEvent], None],
) -> Sequence[dg.DagsterEvent]:
    """Execute one Dagster run with the executor of the setting, and return its events; ``heard`` gets each at once.

    Args:
        job: all assets.
        assets: those to compute.
        run_id: of the Dagster run.
        tags: of the Dagster run; ``dagster/partition`` names the partition, if there is one.

    Raises:
        LemmataError: the executor itself failed, for instance because its workers died.
    """
    if setting() == "in_process":

        def listener(entry: dg.EventLogEntry) -> None:
            if entry.dagster_event:
                heard(entry.dagster_event)

        instance.add_event_listener(run_id, listener)
        return job.execute_in_process(
            partition_key=tags.get("dagster/partition"),
            instance=instance,
            asset_selection=list(assets),
            run_config=dict(run_config),
            run_id=run_id,
            tags=dict(tags),
            raise_on_error=False,
        ).all_events
    # other processes build the definitions again, and find the job in them by its name; Dagster remembers the last one
    # built here, with the executor that was set then
    ReconstructableJob.get_repository_definition.cache_clear()
    ReconstructableJob.get_definition.cache_clear()
    definitions = ReconstructableRepository.for_module("pipeline.definitions", "build")
    elsewhere = definitions.get_reconstructable_job(job.name).get_subset(asset_selection=frozenset(assets))
    run = instance.create_run_for_job(
        elsewhere.get_definition(),
        run_id=run_id,
        tags=dict(tags),
        run_config=dict(run_config),
        asset_selection=frozenset(assets),
        job_code_origin=elsewhere.get_python_origin(),
    )
    events = []
    for event in execute_run_iterator(elsewhere, run, instance):
        heard(event)
        events.append(event)
        if event.event_type == dg.DagsterEventType.PIPELINE_FAILURE and not any(e.is_step_failure for e in events):
            said = _said(event.job_failure_data.error) or event.message or ""
            named = f"{SETTING}={setting()}: "
            raise LemmataError(said if said.startswith(named) else f"{named}the executor gave up: {said}")
    return events


def _said(error: Any) -> str:
    """What an error that Dagster keeps says, and what its cause adds; no traceback, and of our own no class."""
    if error is None:
        return ""
    said = str(error.message).strip().removeprefix(f"tracer.errors.{error.cls_name}: ")
    cause = _said(error.cause)
    return said if cause in said else f"{said} ({cause})"
