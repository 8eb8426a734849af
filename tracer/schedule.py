"""Which steps are recorded in the end, and an account of those that were left out, and why."""

import math
import time
from collections.abc import Callable

from tracer.errors import UsageError
from tracer.plan import Plan


class Budget:
    """A share of training time that recording may take. Spends in pairs of steps, for most metrics join two.

    Args:
        share: seconds of recording per second of training, for instance 0.03.
        clock: seconds, growing.
    """

    def __init__(self, share: float, clock: Callable[[], float] = time.perf_counter) -> None:
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < math.inf:
            raise UsageError(f"budget={share!r}: expected a share of training time above 0, finite, for instance 0.03.")
        self.share = float(share)
        self._clock, self._began = clock, clock()
        self._spent = 0.0

    def spend(self, seconds: float) -> None:
        """Recording has just taken this long."""
        self._spent += seconds

    @property
    def allows(self) -> bool:
        """Whether recording has stayed within its share so far."""
        training = self._clock() - self._began - self._spent
        return self._spent <= self.share * max(training, 0.0)


class Schedule:
    """Decides for each step, one step ahead, whether it is recorded.

    Args:
        plan: what was asked for.
        first: the first step.
        budget: thins the plan out, or None.
    """

    def __init__(self, plan: Plan, first: int, budget: Budget | None) -> None:
        self._plan, self._budget = plan, budget
        self._left_out: dict[str, list[int]] = {}  # why: count, first and last step
        self._pair_begun = False
        self._stopped: str | None = None
        self.step = first
        self.recorded = plan.records(first)
        self.next_recorded = plan.records(first + 1)

    def advance(self) -> None:
        """The step is over."""
        self._pair_begun = self.recorded and not self._pair_begun
        self.step += 1
        self.recorded = self.next_recorded
        self.next_recorded = self._plan.records(self.step + 1)
        if self._stopped:
            if self.next_recorded:
                self._note(self._stopped, self.step + 1)
            self.next_recorded = False
        elif self._budget and self.next_recorded and not self._completes_a_pair() and not self._budget.allows:
            self.next_recorded = False
            self._note("budget", self.step + 1)

    def leave_out(self, why: str) -> None:
        """The present step is not recorded after all."""
        if self.recorded:
            self.recorded = False
            self._note(why, self.step)

    def stop(self, why: str) -> None:
        """Neither the present step nor any later one is recorded."""
        self.leave_out(why)
        if self.next_recorded:
            self.next_recorded = False
            self._note(why, self.step + 1)
        self._stopped = why

    def spend(self, seconds: float) -> None:
        """Recording has just taken this long."""
        if self._budget:
            self._budget.spend(seconds)

    def account(self) -> dict[str, dict[str, int]]:
        """Steps that the plan wanted and that are not recorded: per reason their count, first and last."""
        return {why: dict(zip(("steps", "first", "last"), found, strict=True)) for why, found in self._left_out.items()}

    def _completes_a_pair(self) -> bool:
        return self.recorded and not self._pair_begun

    def _note(self, why: str, step: int) -> None:
        found = self._left_out.setdefault(why, [0, step, step])
        found[0] += 1
        found[2] = step
