"""Processes that compute for another one."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from types import TracebackType


class Workers(ProcessPoolExecutor):
    """Processes of which none is left when the context ends; where it ends with an error, whatever they are at.

    Args:
        count: of processes; they start with the work they get.
        begin: called once in each of them, with ``given``.
    """

    def __init__(self, count: int, begin: Callable[..., None], *given: object) -> None:
        self._others = set(multiprocessing.active_children())
        # a fork would take along the threads' locks without the threads
        super().__init__(count, multiprocessing.get_context("spawn"), begin, given)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abandon()
        self.shutdown(cancel_futures=True)

    def abandon(self) -> None:
        """End these processes, and wait until they have ended."""
        for process in set(multiprocessing.active_children()) - self._others:
            process.terminate()
        self.shutdown(cancel_futures=True)


def serve_parent() -> None:
    """To be called first in a child: leave Ctrl-C to the parent, and end when the parent has ended, killed or not.

    A killed parent closes no queue; its children would wait for work for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
