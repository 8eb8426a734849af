"""Who shares the geometry of one big run: the machines of the dask cluster, one share each.

Within a machine the threads of one process use all its processors, and more processes only repeat what each must know;
so a machine gets one share, however many workers it has.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

from distributed import Client, get_worker, worker_client

from analysis.vectors.sharing import Task, Workers
from pipeline.dask_executor import connected
from pipeline.settings import dask_address, setting

LARGE = 1 << 30
"""Bytes of vectors from which a run is shared: below, what every machine must work out for itself weighs too much."""


@contextmanager
def workers(size: int) -> Iterator[Workers | None]:
    """Machines for a run with so many bytes of vectors; None where the threads of this process do as well."""
    address = dask_address(setting())
    if not address or size < LARGE:  # a cluster of one's own is this machine
        yield None
        return
    try:
        get_worker()
    except ValueError:  # the step runs elsewhere: `lemmata materialize` without the executor, or another one
        with connected(address) as client:
            yield machines(client)
        return
    with worker_client() as client:  # this worker's own thread steps aside, and may take a share like the others
        yield machines(client)


def machines(client: Client) -> Workers | None:
    """One worker of each machine; None where all are on one."""
    # asks the scheduler; what the client remembers of it may be two seconds old
    found = {urlsplit(address).hostname: address for address in client.nthreads()}
    if len(found) < 2:
        return None
    chosen = [found[host] for host in sorted(found, key=str)]

    def run(compute: Callable[[Task], str], tasks: Sequence[Task]) -> list[str]:
        futures = [
            client.submit(compute, task, workers=[worker], pure=False)
            for task, worker in zip(tasks, chosen[: len(tasks)], strict=True)
        ]
        return list(client.gather(futures))

    return Workers(len(chosen), run)
