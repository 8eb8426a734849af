"""Metrics of one run that are computed one after the other share what they read of it, which takes the longest."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import polars as pl

from analysis.measure import Measurement, ModelRows, measure, model_rows
from analysis.metric import Metric
from analysis.tables import PAIRINGS, Tables, TableStore
from pipeline.stale import REPLAYS, version_of

KNOWN: dict[str, Metric] = {}  # every metric that has an asset in this process
MOST = 1 << 17  # rows that are shared; of a long run each metric reads its own columns


class _Shared:
    """What was read last, and of which content."""

    def __init__(self, metrics: Collection[Metric]) -> None:
        self._metrics = metrics
        self._of: Any = None
        self._found: tuple[Tables, ModelRows | None]

    def measure(self, metric: Metric, store: TableStore) -> Measurement:
        of = (store.directory, *(version_of(store, name) for name in ("geometry", REPLAYS)))
        if of != self._of:
            self._found, self._of = self._read(store), of
        tables, model = self._found
        return measure(metric, tables, model if any(metric is each for each in self._metrics) else None)

    def _read(self, store: TableStore) -> tuple[Tables, ModelRows | None]:
        tables = store.tables()
        steps = tables.steps.select(pl.len()).collect().item()
        few = steps * (len(PAIRINGS) + len(tables.facts.references)) <= MOST
        return tables, model_rows(self._metrics, tables) if few else None


_shared: ContextVar[_Shared | None] = ContextVar("shared", default=None)


@contextmanager
def together(names: Collection[str]) -> Iterator[None]:
    """Within the block, those of these assets that are metrics are measured on rows of the run that are read once."""
    metrics = [KNOWN[name] for name in names if name in KNOWN]
    token = _shared.set(_Shared(metrics) if len(metrics) > 1 else None)
    try:
        yield
    finally:
        _shared.reset(token)


def measured(metric: Metric, store: TableStore) -> Measurement:
    """The metric on the tables of a run.

    Raises:
        FormatError: the geometry has not been computed.
        UsageError: the formula cannot be computed.
    """
    shared = _shared.get()
    return measure(metric, store.tables()) if shared is None else shared.measure(metric, store)
