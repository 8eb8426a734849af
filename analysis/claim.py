"""What theory says of a metric: a bound, the quantifier it is meant with, and what does not follow from a verdict."""

from dataclasses import dataclass
from typing import Literal, get_args

import polars as pl

from analysis.expressions import check_one_number, check_row_by_row
from analysis.rounding import default_tolerance
from analysis.tables import pairing_kind
from tracer.errors import UsageError

Over = Literal["every step", "on average", "trend", "ratio", "quantile", "equivalent", "share", "envelope"]


@dataclass(frozen=True)
class Caution:
    """A sentence added to a claim's caveat where a run's column has any value other than ``neutral``."""

    column: str
    neutral: float
    text: str


@dataclass(frozen=True, eq=False)
class Bias:
    """A known amount by which the estimate is off, printed beside it.

    Args:
        rule: short name, "R7".
        says: where it comes from, in words.
        amount: one number from all rows of the claim, in the unit of its quantity: an aggregating expression. Null or
            NaN where the run does not have what it needs.
    """

    rule: str
    says: str
    amount: pl.Expr


@dataclass(frozen=True, eq=False, kw_only=True)
class Claim:
    """What theory says of a metric.

    Args:
        at_most, at_least: the bound; exactly one of the two.
        over: the quantifier, and with it the rule that decides.
            "every step": each pair, beyond its tolerance (rule P). "on average": the mean, by batch means (M).
            "trend": mean of the second half minus mean of the first half. "ratio": Σ ``numerator`` / Σ ``denominator``
            against the bound, by test inversion (R); write it so that the denominator is positive where the claim
            means something: below 0 nothing is decided. "quantile": the ``at_quantile`` of the values, by inverting
            the test of a share (X). "equivalent": the mean lies within ± ``margin`` of the bound, two one-sided tests
            (M). "share": the share of steps whose quantity is above 0 by more than its tolerance, with Wilson's
            interval on the effective number of steps. "envelope": quantity ≤ c₀ + Σ c_i ``regressors`` with c ≥ 0
            fitted on the first half for the share ``at_quantile`` of the steps; on the second half at most twice the
            nominal share lies above (F); its bound is that factor, ``at_most=2``.
        name: short name, unique within the metric.
        says: the statement in words: objective, segment, quantifier, window and norm.
        caveat: what a verdict does *not* refute.
        quantity: what is compared with the bound; the metric's value unless given. May read ``value``. Of a ratio it is
            ``numerator − bound · denominator``, whose sum has the sign that decides.
        tolerance: rounding of ``quantity``; the metric's own tolerance unless given. Of a ratio: of ``numerator − bound
            · denominator``, by default from what the two read.
        null_value: the quantity expected under noise alone.
        optimizers: class names it is stated for; empty for any.
        optimizers_why: why it says nothing about others.
        cautions: caveats that depend on the run.
        numerator, denominator: for "ratio"; row by row.
        null_numerator: the sum of the numerator that noise alone gives, an aggregating expression.
        at_quantile: for "quantile" and "envelope".
        margin: for "equivalent": an aggregating expression over the claim's rows, at least 0.
        regressors: for "envelope": row by row, at least 0.
        pairings: where it is judged, kinds of pairings or pairings by name ("reference:last"); the metric's unless
            given.
        within: where the quantity's mean lies by its nature, as a cosine's in −1 … 1; an interval is shown no farther.
        population: it is about F, not about each f(·, z_t): not applicable to in-sample pairs (pairing "next").
        biases: what is known to shift the estimate.

    Raises:
        UsageError: without exactly one bound, with an unknown ``over``, or without what that rule needs.
    """

    at_most: float | None = None
    at_least: float | None = None
    over: Over = "every step"
    name: str = ""
    says: str = ""
    caveat: str = ""
    quantity: pl.Expr | None = None
    tolerance: pl.Expr | None = None
    null_value: float | None = None
    optimizers: tuple[str, ...] = ()
    optimizers_why: str = ""
    cautions: tuple[Caution, ...] = ()
    numerator: pl.Expr | None = None
    denominator: pl.Expr | None = None
    null_numerator: pl.Expr | None = None
    at_quantile: float | None = None
    margin: pl.Expr | None = None
    regressors: tuple[pl.Expr, ...] = ()
    pairings: tuple[str, ...] = ()
    within: tuple[float, float] | None = None
    population: bool = False
    biases: tuple[Bias, ...] = ()

    def __post_init__(self) -> None:
        if (self.at_most is None) == (self.at_least is None):
            raise UsageError(f"Claim {self.name!r}: give exactly one of at_most and at_least.")
        if self.over not in get_args(Over):
            expected = ", ".join(map(repr, get_args(Over)))
            raise UsageError(f"Claim {self.name!r}: over={self.over!r} is not known; expected one of {expected}.")
        for needed in _NEEDED.get(self.over, ()):
            if (given := getattr(self, needed)) is None or (isinstance(given, tuple) and not given):
                raise UsageError(f"Claim {self.name!r}: over={self.over!r} needs {needed}=.")
        if self.at_quantile is not None and not 0 < self.at_quantile < 1:
            raise UsageError(f"Claim {self.name!r}: at_quantile={self.at_quantile} must lie between 0 and 1.")
        if self.within is not None and not self.within[0] <= self.bound <= self.within[1]:
            raise UsageError(f"Claim {self.name!r}: within={self.within} does not contain the bound {self.bound:g}.")
        if self.over == "envelope" and self.at_most is None:
            raise UsageError(f"Claim {self.name!r}: an envelope's bound is a factor above it, at_most=2.")
        self._check_formulas()
        if self.over == "ratio" and self.numerator is not None and self.denominator is not None:
            parts = ((1.0, self.numerator), (abs(self.bound), self.denominator))
            rounding = pl.sum_horizontal(factor * default_tolerance(part) for factor, part in parts if factor)
            object.__setattr__(self, "quantity", self.numerator - self.bound * self.denominator)
            object.__setattr__(self, "tolerance", rounding if self.tolerance is None else self.tolerance)
        if not self.name:
            object.__setattr__(self, "name", f"{self.bound_text}, {self.over}")
        if not self.says:
            object.__setattr__(self, "says", f"The value is {self.bound_text}: {_QUANTIFIER[self.over]}.")

    def _check_formulas(self) -> None:
        row_by_row = {"quantity": self.quantity, "tolerance": self.tolerance}
        row_by_row |= {"numerator": self.numerator, "denominator": self.denominator}
        row_by_row |= {f"regressors[{i}]": part for i, part in enumerate(self.regressors)}
        for field, part in row_by_row.items():
            check_row_by_row(f"Claim {self.name!r}: {field}", part)
        aggregates = {"null_numerator": self.null_numerator, "margin": self.margin}
        aggregates |= {f"amount of bias {bias.rule}": bias.amount for bias in self.biases}
        for field, part in aggregates.items():
            check_one_number(f"Claim {self.name!r}: {field}", part)

    def judged_at(self, pairing: str, of_metric: tuple[str, ...]) -> bool:
        """Whether the claim is judged at ``pairing`` ("next", "reference:last"); ``of_metric``: the metric's."""
        return bool({pairing, pairing_kind(pairing)} & set(self.pairings or of_metric))

    @property
    def bound(self) -> float:
        """The number the quantity is compared with."""
        return float(self.at_most if self.at_most is not None else self.at_least)  # type: ignore[arg-type]

    @property
    def sign(self) -> int:
        """+1 if the quantity must not exceed the bound, −1 if it must not fall below."""
        return 1 if self.at_most is not None else -1

    @property
    def bound_text(self) -> str:
        """The bound in words."""
        return f"at {'most' if self.sign > 0 else 'least'} {self.bound:g}"


_NEEDED: dict[str, tuple[str, ...]] = {
    "ratio": ("numerator", "denominator"),
    "quantile": ("at_quantile",),
    "equivalent": ("margin",),
    "envelope": ("at_quantile", "regressors"),
}
_QUANTIFIER = {
    "every step": "whole model, each pair by itself, every recorded step, Euclidean norm",
    "on average": "whole model, mean over all recorded steps, Euclidean norm",
    "trend": "whole model, mean of the second half of the run minus mean of the first half, Euclidean norm",
    "ratio": "whole model, sum over sum over all recorded steps, Euclidean norm",
    "quantile": "whole model, a quantile over all recorded steps, Euclidean norm",
    "equivalent": "whole model, mean over all recorded steps, within a margin, Euclidean norm",
    "share": "whole model, share of the recorded steps beyond rounding, Euclidean norm",
    "envelope": "whole model, fitted on the first half of the steps, tested on the second, Euclidean norm",
}
