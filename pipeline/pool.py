"""The processes that compute what is stale; without them this one computes."""

import gc
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
from types import TracebackType
from typing import Self

from pipeline.bodies import Computed, Failure
from pipeline.compute import Graph, compute, graph
from tracer.processes import Workers, serve_parent

SELDOM = 100_000, 50, 100  # new objects between two searches for garbage: figures make many, and few are garbage
DIED = "process"  # the asset that a failure names where a computing process died
Reasons = Mapping[str, str]  # asset: why it is computed again


class Pool:
    """Computes runs in ``processes`` processes; a context manager.

    They start as soon as there is work for each, and load what they need while the rest of it is still looked for. Of
    one run, and with one process, this process computes.
    """

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._started: Workers | None = None

    def expect(self, runs: int) -> None:
        """So many runs are to be computed, as far as is known."""
        if 1 < self._processes <= runs and self._started is None:
            self._started = _start(self._processes)

    def computed(self, planned: Mapping[str, Reasons], of: Graph) -> Iterator[Computed]:
        """Each run when it is done, in whatever order."""
        self._processes = min(self._processes, len(planned))
        self.expect(len(planned))
        if self._started is None:
            yield from (compute(run_id, reasons, of) for run_id, reasons in planned.items())
            return
        left = dict(planned)
        for done in _each(self._started, planned):
            left.pop(done.run_id)
            yield done
        for run_id, reasons in left.items():  # a process died: whose fault it was shows when each has one to itself
            died = Failure(DIED, "The process that computed this run was killed, perhaps because memory ran out.")
            with closing(_each(_start(1), {run_id: reasons})) as alone:
                yield next(alone, Computed(run_id, failures=[died]))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._started is not None:
            self._started.__exit__(kind, error, trace)


def _start(processes: int) -> Workers:
    pool = Workers(processes, _begin)
    for _ in range(processes):  # one starts with each work that none is waiting for
        pool.submit(_nothing)
    return pool


def _each(pool: Workers, planned: Mapping[str, Reasons]) -> Generator[Computed]:
    """Each run when it is done; ends early where one of the processes dies. The pool is of no use afterwards."""
    with suppress(BrokenProcessPool), pool:
        waiting = [pool.submit(compute, run_id, dict(why)) for run_id, why in planned.items()]
        for future in as_completed(waiting):
            yield future.result()


def _begin() -> None:
    """Leave Ctrl-C to the process that reports, end with it, and load everything once."""
    serve_parent()
    graph()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*SELDOM)


def _nothing() -> None:
    pass
