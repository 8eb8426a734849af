"""What one claim is judged by in one pairing: arrays in order of steps, and the few numbers that come with them."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Evidence:
    """The values one claim is judged by, in one pairing, in order of steps; arrays of shape ``(n,)``.

    Args:
        step: step numbers.
        quantity: what is compared with the bound; NaN where undefined or missing.
        tolerance: rounding of the quantity; NaN where not known.
        missing: the value is null: never measured.
        standstill: x and y are the same point, so that a ratio over ‖x − y‖ says nothing.
        sound: whether all that the quantity is made of is finite; None if that is not known.
        numerator, denominator: of a ratio.
        regressors: of an envelope, shape ``(n, k)``.
        margin: of an equivalence; NaN where it is not known.
        null_numerator: the sum of the numerator under noise alone; NaN where it is not known.
    """

    step: npt.NDArray[np.int64]
    quantity: Floats
    tolerance: Floats
    missing: Flags
    standstill: Flags
    numerator: Floats | None = None
    denominator: Floats | None = None
    regressors: Floats | None = None
    margin: float = math.nan
    null_numerator: float = math.nan
    sound: Flags | None = None

    @cached_property
    def defined(self) -> Flags:
        """Where the quantity, and all that goes with it, is a number."""
        there = np.isfinite(self.quantity)
        for part in (self.numerator, self.denominator):
            there &= True if part is None else np.isfinite(part)
        return there if self.regressors is None else there & np.isfinite(self.regressors).all(axis=1)

    @property
    def undefined(self) -> Flags:
        """Where it was measured and is no number."""
        return ~self.defined & ~self.missing

    @property
    def diverged(self) -> Flags:
        """Where it is undefined although the points differ."""
        return self.undefined & ~self.standstill

    @property
    def why_undefined(self) -> str:
        """What such pairs have in common: the run diverged, or the formula has no value at numbers like theirs."""
        if self.sound is None or not self.sound[self.diverged].all():
            return "the run diverged"
        return "0/0 or the root of a negative number, though all that the formula reads is finite"
