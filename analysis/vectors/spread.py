"""How the work on the vectors is spread: over threads here, and over other processes as shares.

Some sums run along the whole training (all gradients so far, the optimizer's moments), so a stretch of steps cannot be
computed without those before it. Coordinates never meet before the end. The vectors are therefore cut into *parts*,
each of which goes through all steps on its own, and the parts' sums are added in the order of the parts. The cut
depends on the model alone: whoever computes a part, and however many share the work, the sums are the same bit for bit.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from analysis.vectors.kernel import PIECE

PARTS = 16
"""Parts at most; so many processes can share a run."""
LEAST = 4 * PIECE  # elements of a part at least: a smaller part costs more to hand out than to compute

Array = npt.NDArray[Any]
Sums = tuple[Array, ...]
Work = Callable[[Array], Sums]  # the sums of a part


def parts_of(pieces: npt.NDArray[np.int64]) -> list[Array]:
    """The parts: pieces of :func:`analysis.vectors.kernel.cuts` that stand next to each other."""
    elements = int((pieces[:, 2] - pieces[:, 1]).sum())
    return np.array_split(pieces, min(PARTS, max(1, elements // LEAST)))


class Spread(Protocol):
    """Who computes which part.

    Attributes:
        columns: the coordinates whose running sums this process keeps.
    """

    columns: slice

    def __call__(self, work: Work, parts: Sequence[Array]) -> Iterable[tuple[Array, Sums]]:
        """Each part with its sums, in their order."""
        ...


class Threads:
    """Everything in this process."""

    columns = slice(None)

    def __call__(self, work: Work, parts: Sequence[Array]) -> Iterable[tuple[Array, Sums]]:
        """Each part with its sums, in their order."""
        if len(parts) == 1:
            return [(parts[0], work(parts[0]))]
        with ThreadPoolExecutor(min(len(parts), os.cpu_count() or 1)) as pool:
            return list(zip(parts, pool.map(work, parts), strict=True))


THREADS = Threads()


@dataclass(frozen=True)
class Share:
    """Parts ``first`` to ``stop`` of a run: what one process computes.

    Args:
        first, stop: numbers of parts.
        columns: the coordinates they cover.
        file: where their sums go.
    """

    first: int
    stop: int
    columns: slice
    file: Path


def shares(pieces: npt.NDArray[np.int64], workers: int, directory: Path) -> list[Share]:
    """The parts dealt out to at most so many workers, neighbours together."""
    parts = parts_of(pieces)
    found = []
    for i, numbers in enumerate(np.array_split(np.arange(len(parts)), min(workers, len(parts)))):
        first, stop = int(numbers[0]), int(numbers[-1]) + 1
        columns = slice(int(parts[first][0, 1]), int(parts[stop - 1][-1, 2]))
        found.append(Share(first, stop, columns, directory / f"share-{i:03d}"))
    return found


class Sharing:
    """A process that computes one share: its sums go into a file, in the order of the calls.

    It returns its own parts alone, so what is made of them is of no use here.
    """

    def __init__(self, share: Share, file: BinaryIO) -> None:
        self.columns = share.columns
        self._share, self._file = share, file

    def __call__(self, work: Work, parts: Sequence[Array]) -> Iterable[tuple[Array, Sums]]:
        """The share's parts with their sums."""
        found = THREADS(work, parts[self._share.first : self._share.stop])
        for _, sums in found:
            for array in (np.array(len(sums)), *sums):
                np.save(self._file, array, allow_pickle=False)
        return found


class Gathered:
    """The process that gathers what the shares' files hold; it computes nothing and keeps no running sum.

    Args:
        shares: all shares of the run, in order, computed.
        files: theirs, opened.
    """

    columns = slice(0, 0)

    def __init__(self, shares: Sequence[Share], files: Sequence[BinaryIO]) -> None:
        self._shares, self._files = shares, files

    def __call__(self, work: Work, parts: Sequence[Array]) -> Iterable[tuple[Array, Sums]]:
        """Each part with its sums, in their order."""
        for share, file in zip(self._shares, self._files, strict=True):
            for part in parts[share.first : share.stop]:
                count = int(np.load(file, allow_pickle=False))
                yield part, tuple(np.load(file, allow_pickle=False) for _ in range(count))
