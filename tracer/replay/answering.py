"""Answering for many rows of a trace: which of them together, and in which process."""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import pyarrow as pa
import torch

from tracer.errors import LemmataError
from tracer.processes import Workers, serve_parent
from tracer.replay.engine import Engine, machine
from tracer.replay.questions import Question
from tracer.replay.source import Source

STRETCH_SECONDS = 1.0  # above it, fewer steps are answered together
HELD = 1 << 22  # numbers of as many gradients as are answered together
PIECE = 128  # steps of a process at most, until it says what it found
PIECES = 4  # of a process at least, so that none waits long for another at the end

Answers = Iterator[tuple[Sequence[int], pa.Table]]  # rows that were answered together, and their part of the table


@dataclass(frozen=True)
class Opened:
    """What a process answers with.

    Args:
        threads: of torch; None for as many as there are.
    """

    engine: Engine
    source: Source
    questions: Mapping[str, Question]
    device: torch.device
    threads: int | None


class Answering(Protocol):
    """Where questions are answered."""

    def __call__(self, question: Question, rows: Sequence[int]) -> Answers:
        """Rising rows, in their order, with what was found."""
        ...


def answers(question: Question, engine: Engine, source: Source, rows: Sequence[int]) -> Answers:
    """In this process. Another thread makes a table while the next rows are asked."""
    with ThreadPoolExecutor(1) as beside:
        before: tuple[Sequence[int], Future[pa.Table]] | None = None
        for stretch in stretches(question, engine, source, rows):
            finish = question.answer(engine, source, stretch)
            if before:
                yield before[0], before[1].result()
            before = stretch, beside.submit(finish)
        if before:
            yield before[0], before[1].result()


def stretches(question: Question, engine: Engine, source: Source, rows: Sequence[int]) -> Iterator[Sequence[int]]:
    """Rows to be answered together: of one chunk, of bounded memory, and of bounded time once one was answered."""
    most, size = max(1, min(question.at_once, HELD // engine.size)), 1
    start = 0
    while start < len(rows):
        stop = min(start + size, bisect_left(rows, source.end_of_chunk(rows[start])))
        began = time.monotonic()
        yield rows[start:stop]
        size = min(2 * size, most) if time.monotonic() - began < STRETCH_SECONDS else max(1, size // 2)
        start = stop


class Processes:
    """Several processes, each with a model of its own, answer for pieces of the rows; the answers come in order.

    What is found for a step depends on that step alone, so the numbers are those of one process.

    Args:
        count: of processes.
        opens: called once in each of them; it must come through a pipe, as ``multiprocessing`` has it.
    """

    def __init__(self, count: int, opens: Callable[[], Opened]) -> None:
        self._count, self._pool = count, Workers(count, _begin, opens)

    def __enter__(self) -> "Processes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.__exit__(kind, error, trace)

    def __call__(self, question: Question, rows: Sequence[int]) -> Answers:
        """Rising rows, in their order, with what was found.

        Raises:
            LemmataError: one of the processes died.
        """
        size = max(1, min(PIECE, -(-len(rows) // (PIECES * self._count))))
        pieces = [rows[at : at + size] for at in range(0, len(rows), size)]
        try:
            futures = [self._pool.submit(_answered, question.table, piece) for piece in pieces]
            # not map: where a process dies it cancels what the pool is about to give its error to
            yield from ((piece, future.result()) for piece, future in zip(pieces, futures, strict=True))
        except BrokenProcessPool:
            raise LemmataError(
                f"replay of {question.table!r}: one of {self._count} processes died, perhaps because memory ran out; "
                "each holds a model of its own. What was sealed is kept: give the same command with fewer --jobs."
            ) from None


_here: list[tuple[Opened, ExitStack]] = []  # of a process that Processes started


def _begin(opens: Callable[[], Opened]) -> None:
    serve_parent()
    found, for_good = opens(), ExitStack()
    for_good.enter_context(machine(found.threads, found.device))
    _here.append((found, for_good))


def _answered(table: str, rows: Sequence[int]) -> pa.Table:
    of, _ = _here[0]
    question = of.questions[table]
    return pa.concat_tables([part for _, part in answers(question, of.engine, of.source, rows)])
