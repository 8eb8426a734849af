"""Before the first step: how many bytes, on this disk, for how long. Better a number now than a full disk at night."""

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tracer.errors import UsageError
from tracer.store.files import pwrite, sync
from tracer.store.layout import Layout

PROBE_BYTES = 64 << 20  # written and synced to measure the disk, then removed
RECORD_BYTES = 2048  # a step record while its chunk is open, about
ROOM = 1.02  # what the files need beyond their vectors and records


@dataclass(frozen=True)
class Forecast:
    """Size and cost of a recording.

    ``step_bytes`` are the bytes of one recorded step, with its minibatch only if the size of that was given; ``steps``
    the recorded steps, ``free_bytes`` what the disk has left, ``bytes_per_second`` what it was measured to write and
    sync (None if it was not measured).
    """

    step_bytes: int
    steps: int
    free_bytes: int
    bytes_per_second: float | None

    @property
    def total_bytes(self) -> int:
        """Bytes of the whole run."""
        return int(self.step_bytes * self.steps * ROOM)

    @property
    def seconds(self) -> float | None:
        """Time the disk needs for the whole run; training waits for it only where it is faster than the disk."""
        return None if self.bytes_per_second is None else self.total_bytes / self.bytes_per_second

    @property
    def fits(self) -> bool:
        """Whether the disk holds the run."""
        return self.total_bytes <= self.free_bytes

    def check(self, directory: Path) -> None:
        """Raise :class:`UsageError` with the numbers if the disk does not hold the run."""
        if not self.fits:
            raise UsageError(
                f"{directory}: the run needs {size(self.total_bytes)} ({self.steps:,} steps of "
                f"{size(self.step_bytes)}) and this disk has {size(self.free_bytes)} left. Record fewer steps or "
                "blocks (plan=, blocks=), or indices where whole minibatches are recorded (tensors=); choose another "
                "disk, or pass check_space=False if you will make room in time."
            )


def forecast(layout: Layout, steps: int, directory: Path, measure: bool = False, batch_bytes: int = 0) -> Forecast:
    """Forecast for ``steps`` recorded steps of ``layout`` under ``directory``, which need not exist yet.

    Args:
        measure: write and sync 64 MiB there to measure the disk; takes a moment.
        batch_bytes: of one step's minibatch, where minibatches are recorded; nobody but training knows.
    """
    place = existing(directory)
    speed = disk_speed(place) if measure else None
    return Forecast(layout.step_bytes + batch_bytes + RECORD_BYTES, steps, shutil.disk_usage(place).free, speed)


def disk_speed(directory: Path, size: int = PROBE_BYTES) -> float:
    """Bytes per second that a file in ``directory`` takes, its data brought to the disk; the file is removed.

    Raises:
        OSError: the directory cannot be written, or has no room for ``size`` bytes.
    """
    path = directory / f".lemmata-disk-speed-{os.getpid()}"
    block = np.random.default_rng(0).bytes(1 << 20)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        began = time.perf_counter()
        for at in range(0, size, len(block)):
            pwrite(descriptor, block, at)
        sync(descriptor)
        return size / (time.perf_counter() - began)
    finally:
        os.close(descriptor)
        path.unlink()


def existing(directory: Path) -> Path:
    """The directory itself, or the nearest parent that is there."""
    return next(place for place in (directory, *directory.parents) if place.is_dir())


def size(count: float) -> str:
    """``count`` bytes as people write it.

    Example:
        >>> size(1500), size(3.2e9)
        ('1.5 kB', '3.2 GB')
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} PB"
