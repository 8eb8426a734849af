"""One writer per run; the kernel keeps the score, so a dead process never holds a run."""

import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path

from tracer.errors import UsageError

PATIENCE = 10  # tries


@dataclass(frozen=True)
class Lock:
    """The right to write into a run directory; the kernel takes it back when the process dies."""

    descriptor: int

    @classmethod
    def take(cls, directory: Path) -> "Lock":
        """Take it, or raise :class:`UsageError` if another process is recording into ``directory``."""
        descriptor = os.open(directory, os.O_RDONLY)
        for _ in range(PATIENCE):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return cls(descriptor)
            except OSError:
                time.sleep(0.02)  # somebody who only asks holds it for a moment
        os.close(descriptor)
        raise UsageError(
            f"{directory}: another process is recording into this run, or archiving it. "
            "Choose another run id, or wait until it has ended."
        )

    def release(self) -> None:
        """Give it back."""
        os.close(self.descriptor)


def being_written(directory: Path) -> bool:
    """Whether a living process holds the :class:`Lock` of this run."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
