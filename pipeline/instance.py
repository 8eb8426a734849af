"""The Dagster instance: a home that is configured once and opened safely by several processes.

Its storage is SQLite in that directory, or the PostgreSQL that ``$LEMMATA_POSTGRES`` names.
"""

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from sqlalchemy.exc import OperationalError

from pipeline import postgres
from pipeline.abandoned import cancel_abandoned
from tracer.errors import UsageError
from tracer.store import home
from tracer.store.files import write_aside
from tracer.store.places import require_root

PARTITIONS = "runs"  # name of the dynamic partitions: one key per recorded run
CONFIGURATION = """\
# Written by lemmata when this directory was new. Edit freely: it is not written again.
telemetry:
  enabled: false
nux:
  enabled: false  # a dialog that would cover the first page
python_logs:
  python_log_level: WARNING
run_coordinator:
  module: dagster.core.run_coordinator
  class: QueuedRunCoordinator
  config:
    max_concurrent_runs: 2
    dequeue_interval_seconds: 1
compute_logs:  # an error is kept with its run anyway; capturing the output costs two processes a run
  module: dagster._core.storage.noop_compute_log_manager
  class: NoOpComputeLogManager
"""


def directory() -> Path:
    """The instance's directory: ``$DAGSTER_HOME`` where it is set, else ``dagster`` in the project's home.

    With ``$LEMMATA_POSTGRES`` it is ``dagster-postgres`` there.

    Raises:
        UsageError: ``$DAGSTER_HOME`` is relative or not there; Dagster would refuse it with a longer text.
    """
    given = os.environ.get("DAGSTER_HOME")
    if not given:
        return postgres.directory() if postgres.url() else home.dagster_home()
    path = Path(given)
    if not path.is_absolute() or not path.is_dir():
        raise UsageError(
            f"DAGSTER_HOME={given}: expected an absolute path of a directory that is there. "
            "Create it, or unset DAGSTER_HOME to use the project's own."
        )
    return path


def prepare() -> Path:
    """Create, configure and initialise the instance's directory if that has not happened; return it.

    Several processes that open a fresh SQLite home at once can damage it for good, so they come here first and wait
    for one another. A home that ``$DAGSTER_HOME`` names keeps whatever configuration it has.
    """
    path = directory()
    path.mkdir(parents=True, exist_ok=True)
    with alone(path):
        configuration = path / "dagster.yaml"
        if not os.environ.get("DAGSTER_HOME") and not configuration.exists():
            write_aside(configuration, (CONFIGURATION + (postgres.STORAGE if postgres.url() else "")).encode())
        if postgres.url():
            _require_postgres(configuration)
        with dg.DagsterInstance.from_config(str(path)) as instance:  # each of the three makes its database when asked
            instance.get_runs(limit=1)
            instance.get_dynamic_partitions(PARTITIONS)
            instance.all_instigator_state()
    return path


def _require_postgres(configuration: Path) -> None:
    """What was set is either used or refused, never passed over; ``dagster.yaml`` may be the user's own."""
    text = configuration.read_text(encoding="utf-8") if configuration.exists() else ""
    if postgres.SETTING not in text:
        raise UsageError(
            f"{configuration}: expected it to name {postgres.SETTING}, which is set; found no such storage. Add\n"
            f"{postgres.STORAGE}or unset {postgres.SETTING}."
        )
    postgres.check()
    postgres.name_driver()


@contextmanager
def opened() -> Iterator[dg.DagsterInstance]:
    """The prepared instance, closed at the end; runs of processes that died are reported as cancelled.

    Raises:
        UsageError: the tables' root is no directory, or cannot be reached: nothing can be computed.
    """
    require_root(home.tables_root(), "LEMMATA_TABLES", absent=True)
    with dg.DagsterInstance.from_config(str(prepare())) as instance:
        cancel_abandoned(instance)
        yield instance


def database_fault(error: Exception) -> str | None:
    """What to say of an error of the instance's database (a full disk, a server that went away); else None."""
    if not isinstance(error, OperationalError):
        return None
    at = directory()
    where = postgres.SETTING if postgres.url() else f"{at} ({shutil.disk_usage(at).free:,} bytes free)"
    return (
        f"{where}: Dagster's database there cannot be read or written: {str(error.orig).strip()}. Make room or mend "
        "it, then run the same again: what was computed stays, and what is missing is computed."
    )


def register(instance: dg.DagsterInstance, run_ids: Iterable[str]) -> None:
    """Add the partitions of runs; those that are there stay as they are."""
    instance.add_dynamic_partitions(PARTITIONS, [home.check_run_id(run_id) for run_id in run_ids])


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until no other process is inside with this directory."""
    descriptor = os.open(path, os.O_RDONLY)  # the directory itself is the lock: nothing is left behind
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
