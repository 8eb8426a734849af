"""Processes that compute for another one."""

import multiprocessing
import os
import signal
import threading


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
