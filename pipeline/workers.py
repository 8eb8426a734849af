"""Who shares the geometry of one big run: the workers that the executor's setting has, beside the step that asks."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

from analysis.sharing import Task, Workers
from pipeline.executors import dask_address, setting

LARGE = 256 << 20
"""Bytes of vectors from which a run is shared: below, a process takes longer to start than to compute."""


@contextmanager
def workers(size: int) -> Iterator[Workers | None]:
    """Other processes for a run with so many bytes of vectors; None where the threads of this one do as well.

    With dask they are the workers of the cluster that executes this step, or else of the setting's. With
    ``multiprocess`` they are one process per processor of this machine. With any other executor there are none.
    """
    name = setting()
    if size < LARGE:
        yield None
    elif dask_address(name) is not None:
        with _on_dask(str(dask_address(name))) as found:
            yield found
    elif name == "multiprocess":
        count = len(os.sched_getaffinity(0))
        with ProcessPoolExecutor(count, get_context("spawn")) as pool:
            yield Workers(count, pool.map)
    else:
        yield None


@contextmanager
def _on_dask(address: str) -> Iterator[Workers]:
    from distributed import Client, get_worker, worker_client

    from pipeline.dask_executor import connected

    def of(client: Client) -> Workers:
        def run(compute: Callable[[Task], str], tasks: Sequence[Task]) -> list[str]:
            return list(client.gather(client.map(compute, tasks, pure=False)))

        return Workers(max(1, len(client.scheduler_info(n_workers=-1)["workers"])), run)

    try:
        get_worker()
    except ValueError:  # a step in this process: `lemmata materialize`, or the default executor of a code server
        with connected(address) as client:
            yield of(client)
        return
    with worker_client() as client:  # this worker's own thread steps aside, and takes a share like the others
        yield of(client)
