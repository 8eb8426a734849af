"""Dagster runs whose process died: Dagster would count them as running for ever, and two of them stop the queue."""

import json
import os
import socket
from collections.abc import Mapping

import dagster as dg

OWNER = "lemmata/process"  # tag of runs that a command of ours executes itself: host and process
SERVED = ".dagster/grpc_info"  # tag of runs that a code server executes: its address
ALIVE = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def owner() -> dict[str, str]:
    """The tag of a run that this process executes."""
    return {OWNER: f"{socket.gethostname()}:{os.getpid()}"}


def abandoned(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Runs whose process is gone; those of other machines are left alone."""
    return [run for run in instance.get_runs(filters=dg.RunsFilter(statuses=ALIVE)) if _abandoned(run.tags)]


def cancel_abandoned(instance: dg.DagsterInstance) -> list[str]:
    """Report runs as cancelled whose process is gone; their ids."""
    gone = abandoned(instance)
    for run in gone:
        instance.report_run_canceled(run, "The process that executed this run ended before the run did.")
    return [run.run_id for run in gone]


def _abandoned(tags: Mapping[str, str]) -> bool:
    if OWNER in tags:
        host, _, process = tags[OWNER].rpartition(":")
        return host == socket.gethostname() and not _runs(int(process))
    address = json.loads(tags.get(SERVED, "{}")).get("socket")
    return address is not None and not _answers(address)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)  # asks only
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _answers(address: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(address) == 0
