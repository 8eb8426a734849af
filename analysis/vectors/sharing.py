"""One run computed by several processes: each takes a share of the parts, and one gathers the sums.

Every process maps all chunks and touches the coordinates of its share; the hashes of the files are compared by whoever
has that stretch of chunks in its charge. What depends on steps alone, every process works out for itself.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from analysis.vectors.dynamics import Dynamics
from analysis.vectors.kernel import cuts
from analysis.vectors.reduce import reduce
from analysis.vectors.references import find_points
from analysis.vectors.spread import THREADS, Gathered, Share, Sharing, Spread, shares
from tracer.store import Trace


@dataclass(frozen=True)
class Task:
    """What a process is asked: the run, its reference points, the share, and which chunks it verifies."""

    run: Path
    references: tuple[str, ...]
    share: Share
    verify: range


@dataclass(frozen=True)
class Workers:
    """Other processes that see the same files at the same paths.

    Args:
        count: how many.
        map: calls a function with each task there; the results in the order of the tasks.
    """

    count: int
    map: Callable[[Callable[[Task], str], Sequence[Task]], Iterable[str]]


@np.errstate(over="ignore", invalid="ignore")  # as in analysis.geometry
def compute(task: Task) -> str:
    """Write the sums of a share into its file, and return the digest of the content they are of.

    Raises:
        FormatError: a chunk in this process's charge is damaged.
    """
    trace = Trace(task.run)
    steps = pl.DataFrame(pl.from_arrow(trace.records()))
    points = find_points(trace, steps, task.references, task.share.columns)
    with open(task.share.file, "wb") as file:
        spread = Sharing(task.share, file)
        dynamics = Dynamics(trace.manifest, steps, points.last, spread)
        for reduced in reduce(trace, steps, points, spread, task.verify):
            dynamics.over(reduced.segment)
    return trace.digest


@contextmanager
def gathered(trace: Trace, references: Sequence[str], workers: Workers, directory: Path) -> Iterator[Spread]:
    """The sums of the whole run, computed by ``workers``; their files in ``directory`` go away after the block.

    A run that grew between their looks at it is computed here instead, as it was at the first look.

    Raises:
        FormatError: a chunk is damaged.
    """
    dealt = shares(cuts([block.size for block in trace.blocks]), workers.count, directory)
    edges = np.linspace(0, trace.chunk_count, len(dealt) + 1).astype(int).tolist()
    tasks = [Task(trace.path, tuple(references), share, range(edges[i], edges[i + 1])) for i, share in enumerate(dealt)]
    try:
        digests = set(workers.map(compute, tasks))
        if digests != {trace.digest}:
            yield THREADS
            return
        with ExitStack() as files:
            yield Gathered(dealt, [files.enter_context(open(share.file, "rb")) for share in dealt])
    finally:
        for share in dealt:
            share.file.unlink(missing_ok=True)
