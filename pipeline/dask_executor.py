"""Dagster's steps on a dask cluster: dagster-dask's, with its two surprises cured.

dagster-dask hands all steps over at once, named JOB.STEP: a step whose input failed runs all the same, and two runs
that share a scheduler get each other's results, because the names are the same. Here Dagster itself says which step may
start, and a task has a name of its own. The cluster, and what a worker does, are dagster-dask's.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
from dagster._core.errors import raise_execution_interrupts
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.executor.base import Executor
from dagster._core.executor.init import InitExecutorContext
from dagster_dask.executor import DaskExecutor, query_on_dask_worker
from distributed import Client, LocalCluster, as_completed

from pipeline.instance import directory
from tracer.errors import UsageError

HOST = "127.0.0.1"
PATIENCE = 30.0  # seconds to find a scheduler


@dg.executor(
    name="dask",
    requirements=dg.multiple_process_executor_requirements(),
    config_schema={
        "address": dg.Field(dg.StringSource, default_value="", description="Scheduler; else a cluster here")
    },
)
def dask_executor(context: InitExecutorContext) -> Executor:
    """Steps on the workers of the scheduler at ``address``, or of a cluster on this machine."""
    return Dask(str(context.executor_config["address"]))


@contextmanager
def connected(address: str) -> Iterator[Client]:
    """A client of the scheduler at ``address``, or of a cluster that lasts as long as the block.

    Raises:
        UsageError: nothing answers there.
    """
    if address:
        try:
            client = Client(address, timeout=PATIENCE)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"LEMMATA_EXECUTOR=dask:{address}: expected a dask scheduler, found none ({error!s:.200}). "
                "Start it (dask scheduler), or correct the address."
            ) from None
        with client:
            yield client
        return
    with TemporaryDirectory(prefix="dask-", dir=directory()) as scratch, local(Path(scratch)) as client:
        yield client


@contextmanager
def local(scratch: Path) -> Iterator[Client]:
    """A cluster of as many processes as there are processors, reachable from this machine alone."""
    with (
        LocalCluster(
            n_workers=len(os.sched_getaffinity(0)),
            threads_per_worker=1,  # Dagster's steps share no threads
            host=HOST,
            dashboard_address=f"{HOST}:0",
            local_directory=str(scratch),
            memory_limit=0,  # a mapped trace counts as a worker's memory, and it would be ended for that
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


class Dask(DaskExecutor):
    """Args: address of a scheduler, or empty."""

    def __init__(self, address: str) -> None:
        super().__init__("existing" if address else "local", {"address": address} if address else {})  # type: ignore[no-untyped-call]
        self._address = address

    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[Any]:
        """Steps in an order that their inputs allow, each as a task; what depends on a failed one is skipped."""
        with connected(self._address) as client, ActiveExecution(execution_plan, retry_mode=self.retries) as active:
            running = as_completed(with_results=True, raise_errors=False)
            keys: dict[str, str] = {}
            while not active.is_complete:
                for step in active.get_steps_to_execute():
                    step_here = partial(  # dask would take arguments apart in search of tasks, and some are tuples
                        query_on_dask_worker,
                        [],
                        plan_context.reconstructable_job,
                        plan_context.dagster_run,
                        plan_context.run_config,
                        [step.key],
                        plan_context.instance.get_ref(),
                        active.get_known_state(),
                    )
                    future = client.submit(step_here, key=f"{step.key}-{uuid.uuid4()}", pure=False)
                    keys[future.key] = step.key
                    running.add(future)
                if running.count():
                    with raise_execution_interrupts():
                        future, found = next(running)
                    if future.status != "finished":
                        raise found[1] if isinstance(found, tuple) else RuntimeError(f"{keys[future.key]}: {found}")
                    for event in found:
                        yield event
                        active.handle_event(event)
                    active.verify_complete(plan_context, keys[future.key])
                yield from active.plan_events_iterator(plan_context)
