"""Recording plans: which steps are recorded. Pure; a plan knows step numbers and nothing else."""

from dataclasses import asdict, dataclass
from typing import Any, Protocol

from tracer.errors import UsageError


class Plan(Protocol):
    """Anything that says of every step, before it is taken, whether it is recorded."""

    def records(self, step: int) -> bool:
        """Whether ``step`` (0, 1, 2, …) is recorded; the same answer whenever it is asked."""
        ...

    def description(self) -> dict[str, Any]:
        """The plan for the manifest: plain JSON."""
        ...


@dataclass(frozen=True)
class Every:
    """Every step.

    Example:
        >>> [t for t in range(5) if Every().records(t)]
        [0, 1, 2, 3, 4]
    """

    def records(self, step: int) -> bool:
        """All of them."""
        return True

    def description(self) -> dict[str, Any]:
        """For the manifest."""
        return {"steps": "every"}


@dataclass(frozen=True)
class EveryNth:
    """Steps 0, n, 2n, … and, with ``neighbour``, the step after each: most metrics join a point and the one before it.

    Example:
        >>> [t for t in range(12) if EveryNth(5).records(t)]
        [0, 1, 5, 6, 10, 11]
        >>> [t for t in range(12) if EveryNth(5, neighbour=False).records(t)]
        [0, 5, 10]
    """

    n: int
    neighbour: bool = True

    def __post_init__(self) -> None:
        _whole("EveryNth", n=self.n)

    def records(self, step: int) -> bool:
        """Whether ``step`` is a multiple of n, or follows one."""
        return step % self.n == 0 or (self.neighbour and step % self.n == 1)

    def description(self) -> dict[str, Any]:
        """For the manifest."""
        return {"steps": "every nth", **asdict(self)}


@dataclass(frozen=True)
class Bursts:
    """The first ``length`` steps of every ``period``.

    Example:
        >>> [t for t in range(12) if Bursts(length=3, period=6).records(t)]
        [0, 1, 2, 6, 7, 8]
    """

    length: int
    period: int

    def __post_init__(self) -> None:
        _whole("Bursts", length=self.length, period=self.period)
        if self.length > self.period:
            raise UsageError(
                f"Bursts(length={self.length}, period={self.period}): expected a burst no longer than its period."
            )

    def records(self, step: int) -> bool:
        """Whether ``step`` lies in a burst."""
        return step % self.period < self.length

    def description(self) -> dict[str, Any]:
        """For the manifest."""
        return {"steps": "bursts", **asdict(self)}


def count(plan: Plan, steps: int) -> int:
    """How many of the first ``steps`` steps are recorded; beyond a million, in proportion to the first million.

    Example:
        >>> count(EveryNth(5), 10**9)
        400000000
    """
    sample = min(steps, 10**6)
    found = sum(map(plan.records, range(sample)))
    return found if sample == steps else found * steps // sample


def _whole(plan: str, **numbers: int) -> None:
    for name, number in numbers.items():
        if not isinstance(number, int) or number < 1:
            raise UsageError(f"{plan}: {name}={number!r}; expected a whole number of steps, at least 1.")
