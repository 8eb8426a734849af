"""How everything here is measured: contenders take turns, a figure is a ratio, its value a median with quartiles.

Times on a shared machine mean nothing by themselves. Contenders therefore run in the same process, one short turn each,
in a new order every round; a ratio is formed within a round, and the median is taken over the rounds.
"""

import datetime
import json
import os
import platform
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.progress import Progress

Samples = npt.NDArray[np.float64]

CONFINES = hasattr(os, "sched_setaffinity")  # whether a process can be kept on one core here
PACKAGES = ("lemmata", "torch", "numpy", "h5py", "pyarrow", "xxhash", "numba", "polars", "zarr", "safetensors")


@dataclass(frozen=True)
class Target:
    """What the figure should be: ``Target("≤", 1.05)``."""

    sign: str
    value: float

    def met(self, found: float) -> bool:
        """Whether ``found`` reaches it."""
        return found <= self.value if self.sign == "≤" else found >= self.value

    def __str__(self) -> str:
        return f"{self.sign} {self.value:g}"


def at_most(value: float) -> Target:
    """The figure should not be larger."""
    return Target("≤", value)


def at_least(value: float) -> Target:
    """The figure should not be smaller."""
    return Target("≥", value)


@dataclass(frozen=True)
class Figure:
    """One measured number: median and quartiles over ``count`` rounds, or over steps where the name says so."""

    benchmark: str
    setting: str
    name: str
    median: float
    lower: float
    upper: float
    count: int
    target: Target | None = None
    unit: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None where there is none."""
        return None if self.target is None else self.target.met(self.median)


@dataclass
class Session:
    """One call of the benchmarks: how much to do, where, and what was found.

    ``quick`` runs everything once or twice on tiny inputs: it shows that the benchmarks work and measures nothing.
    """

    folder: Path
    quick: bool = False
    progress: Progress | None = None
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # sentences for the page
    listings: list[tuple[str, str]] = field(default_factory=list)  # titles and texts for the page

    def rounds(self, number: int) -> int:
        """That many, or two."""
        return 2 if self.quick else number

    def add(
        self,
        benchmark: str,
        setting: str,
        name: str,
        values: Iterable[float],
        target: Target | None = None,
        unit: str = "",
    ) -> None:
        """Keep a figure; values that are not finite (a peer that is not there) are a mistake."""
        samples = np.asarray(list(values), np.float64)
        if not len(samples) or not np.isfinite(samples).all():
            raise ValueError(f"{benchmark}, {setting}, {name}: samples are {samples}; expected finite numbers.")
        lower, median, upper = np.quantile(samples, (0.25, 0.5, 0.75))
        self.figures.append(
            Figure(benchmark, setting, name, float(median), float(lower), float(upper), len(samples), target, unit)
        )

    def note(self, text: str) -> None:
        """Keep a sentence for the page, once."""
        if text not in self.notes:
            self.notes.append(text)

    def take_turns(
        self, title: str, contenders: Mapping[str, Callable[[], float]], rounds: int, warm_up: int = 1
    ) -> dict[str, Samples]:
        """Let every contender run once per round, in a new order each, and collect what they return.

        Returns:
            name to values, shape ``(rounds,)``; equal places of two contenders belong to the same round.
        """
        found: dict[str, list[float]] = {name: [] for name in contenders}
        order, shuffle = list(contenders), random.Random(0)
        for turn in self.track(range(-warm_up, rounds), title):
            shuffle.shuffle(order)
            for name in order:
                value = contenders[name]()
                if turn >= 0:
                    found[name].append(value)
        return {name: np.array(values) for name, values in found.items()}

    def track(self, things: Sequence[Any], title: str) -> Iterator[Any]:
        """Go through ``things`` with a progress bar."""
        yield from things if self.progress is None else self.progress.track(things, description=title)


def timed(action: Callable[[], object]) -> Callable[[], float]:
    """``action`` as a contender: returns the seconds it took."""

    def run() -> float:
        begin = time.perf_counter()
        action()
        return time.perf_counter() - begin

    return run


@contextmanager
def one_core() -> Iterator[None]:
    """Confine this process, and every thread it starts, to one core; Linux only, see :data:`CONFINES`."""
    before = os.sched_getaffinity(0)
    try:
        _confine({min(before)})
        yield
    finally:
        _confine(before)


def _confine(cores: set[int]) -> None:
    for thread in os.listdir("/proc/self/task"):
        try:
            os.sched_setaffinity(int(thread), cores)
        except ProcessLookupError:  # it ended meanwhile
            continue


def installed(package: str) -> str | None:
    """Its version, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def machine(folder: Path) -> dict[str, str]:
    """What the numbers were measured on, label to text."""
    cores = len(os.sched_getaffinity(0)) if CONFINES else os.cpu_count()
    return {
        "processor": f"{_processor()}, {cores} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "disk": f"{_file_system(folder)} under the folder for temporary files",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "packages": ", ".join(f"{name} {installed(name) or 'not installed'}" for name in PACKAGES),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def load() -> str:
    """How busy the machine is, as a text: processes that want to run, over 1, 5 and 15 minutes."""
    return " ".join(f"{value:.1f}" for value in os.getloadavg())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = {key.strip(): text.strip() for key, _, text in (line.partition(":") for line in lines)}
    caches = f", {found['cache size']} cache" if "cache size" in found else ""
    name = found.get("model name", platform.machine())
    return f"{name} (family {found.get('cpu family', '?')} model {found.get('model', '?')}{caches})"


def _file_system(folder: Path) -> str:
    best, kind = "", "unknown file system"
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return kind
    for line in mounts:
        _, place, name, *_ = line.split()
        if folder.resolve().is_relative_to(place) and len(place) > len(best):
            best, kind = place, name
    return kind


# --- the page -----------------------------------------------------------------------------------------------------


def json_lines(figures: Iterable[Figure], about: Mapping[str, str]) -> str:
    """One JSON object per line: the machine first, then the figures."""
    rows = [{"machine": dict(about)}, *({**asdict(f), "met": f.met} for f in figures)]
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def markdown_table(figures: Iterable[Figure]) -> str:
    """The figures of one benchmark."""
    lines = ["| setting | figure | median | quartiles | n | target | |", "|---|---|---:|---:|---:|---:|---|"]
    for f in figures:
        said = {None: "", True: "met", False: "**missed**"}[f.met]
        spread = f"{number(f.lower)} – {number(f.upper)}" if f.count > 1 else ""
        cells = (f.setting, f.name, number(f.median) + f.unit, spread, f.count, f.target or "", said)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """Three significant digits, or four where the first of them is a one."""
    if value == 0:
        return "0"
    digits = 4 if f"{abs(value):e}"[0] == "1" else 3
    places = max(0, digits - 1 - int(np.floor(np.log10(abs(value)))))
    return f"{value:,.{places}f}"
