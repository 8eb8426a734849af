"""One Dagster run that reports what other processes computed; its events are written many at a time.

SQLite writes each event by a connection, an engine and a transaction of its own, two or three times: some 20 ms of
processor time, and the disk is waited for each time.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import dagster as dg
from dagster._core.event_api import EventLogRecord
from dagster._core.storage.event_log import sql_event_log
from dagster._serdes import serialize_value

from pipeline.abandoned import owner
from pipeline.bodies import Event, aimed
from pipeline.failures import QUIET

TOGETHER, SECONDS = 100, 5.0  # events that are written at once, and how long the first of them waits for the others


def report(instance: dg.DagsterInstance, done: Callable[[], Iterator[list[Event]]]) -> None:
    """One Dagster run with one step, which hands on what ``done`` yields; it fails as a blocking check does.

    Args:
        instance: where it is reported.
        done: yields the events of a recorded run when it has been computed. Where it raises, what it gave before is
            reported, and the run fails.
    """

    @dg.op(name="rerun", out={})
    def step(context: dg.OpExecutionContext) -> Iterator[Any]:
        def at_once(events: list[Event]) -> Iterator[Event]:
            if events:
                with _one_transaction(instance, other, context.run_id):
                    yield from aimed(instance, context.run_id, events)

        waiting: list[Event] = []
        since = time.monotonic()
        try:
            for events in done():
                since = since if waiting else time.monotonic()
                waiting += events
                if len(waiting) >= TOGETHER or time.monotonic() - since >= SECONDS:
                    yield from at_once(waiting)
                    waiting = []
        except BaseException:
            yield from at_once(waiting)
            raise
        yield from at_once(waiting)

    @dg.job(name="rerun", executor_def=dg.in_process_executor)
    def job() -> None:
        step()

    with dg.DagsterInstance.from_ref(instance.get_ref()) as other:
        job.execute_in_process(instance=instance, run_config=QUIET, tags=owner(), raise_on_error=False)


@contextmanager
def _one_transaction(instance: dg.DagsterInstance, other: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """What is written of this Dagster run within the block becomes one transaction of each of SQLite's two files.

    ``other`` is the same instance again: its storage opens the second file, because one storage opens one at a time.
    """
    storage, second = (_storage(each) for each in (instance, other))
    if not hasattr(storage, "path_for_shard"):  # a server's connections are kept open anyway
        yield
        return
    with storage.run_connection(run_id) as own, second.index_connection() as index:
        kept = {
            "run_connection": lambda of=None: nullcontext(own),
            "index_connection": lambda: nullcontext(index),
            "has_table": cache(storage.has_table),
        }
        vars(storage).update(kept)
        module = vars(sql_event_log)
        honest, module["serialize_value"] = module["serialize_value"], written_once()
        try:
            yield
        finally:
            module["serialize_value"] = honest
            for name in kept:
                vars(storage).pop(name)


def written_once() -> Callable[[Any], str]:
    """As Dagster's ``serialize_value``, which two or three columns in a row ask for the same event.

    Writing a page out as text takes longer than everything else about an event.
    """
    kept: tuple[Any, str] = None, ""

    def written(value: Any) -> str:
        nonlocal kept
        if isinstance(value, EventLogRecord):  # the event again, with its number
            entry = written(value.event_log_entry)
            return f'{{"__class__": "EventLogRecord", "event_log_entry": {entry}, "storage_id": {value.storage_id}}}'
        event, text = kept
        if value is not event:
            text = serialize_value(value)
            kept = value, text
        return text

    return written


def _storage(instance: dg.DagsterInstance) -> Any:
    return instance.event_log_storage  # its methods are those of any SQL storage, which the type does not say
