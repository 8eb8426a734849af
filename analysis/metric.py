"""A metric: one formula over the numbers of a pair, and what theory claims of it.

A metric is a value, not a function: it can be printed, compared and fingerprinted, and everything else (asset, check,
catalogue page, law tests) is derived from it.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import InitVar, dataclass, fields, is_dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import polars as pl

from analysis.columns import COLUMNS, LOSSES, Units
from analysis.rounding import default_tolerance
from analysis.series import Series
from analysis.tables import PAIRINGS, pairing_kind
from tracer.errors import UsageError

Over = Literal["every step", "on average", "trend", "ratio", "quantile", "equivalent", "share", "envelope"]
Blocks = Literal["share", "trajectory", "alone", "no"]
FAMILIES = {
    "A": "Convexity along the step",
    "B": "Reference points",
    "C": "Smoothness and curvature",
    "D": "Descent and update correlation",
    "E": "Non-smooth and online-to-non-convex",
    "F": "Noise",
    "G": "Other geometries and rates",
    "": "Your own",
}
RULES = 3
"""Version of the rules that turn values into verdicts; raised when a rule changes, so that verdicts turn stale."""
_TAKEN = {"pairing", "step", "block", "value", "tolerance"}
_OF_WINDOWS = {"window", "number", "first_step", "last_step", "pairs", "undefined", "missing", "mean", "total"} | {
    "smallest", "median", "largest", "numerator", "denominator", "ratio"
}  # fmt: skip


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


@dataclass(frozen=True, eq=False)
class Variant:
    """Another definition in circulation, shown beside the metric's own so that a reader sees how far it moves a number.

    Args:
        name, title: as of a series; the title says whose definition it is.
        value: row by row, in the metric's unit; of the whole model.
        summary: from the values of a window to one number (reads ``value``); the mean unless given.
    """

    name: str
    title: str
    value: pl.Expr
    summary: pl.Expr | None = None


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
            if part is not None and not _has(part, "is_scalar", True):
                raise UsageError(
                    f"Claim {self.name!r}: {field} must be one number from all rows (a sum, a mean, …); found {part}."
                )

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


@dataclass(frozen=True, eq=False, kw_only=True)
class Metric:
    """One formula over the columns of :mod:`analysis.columns`, with its unit, its series and its claims.

    Args:
        name: lower case letters, digits and underscores; names the table and the asset.
        units: unit of the value.
        value: the formula, computed row by row. Rows where it is NaN or infinite are undefined, null rows missing.
        title, paper, formula: what people read; the formula is printed from ``value`` unless given.
        family: letter of :data:`FAMILIES`; catalogue: ids in the catalogue of docs/metrics.md, ("A1", "A2").
        pairings: which pairs it is meant for: "previous", "next" (in-sample), "reference" (every reference point).
            Unpaired rows are measured beside "previous" and never judged.
        blocks: what a parameter tensor's own value means: an exact additive "share" of the model's, a value along the
            whole "trajectory" (the other tensors move too), a value with this tensor moved "alone", or "no" meaning.
        ratio: numerator and denominator where windows are summarised by sum over sum, never by a mean of ratios.
        variants: other definitions in circulation.
        series: columns beside the value, see :mod:`analysis.series`.
        tolerance: rounding of the value; by default derived from what the formula reads.
        claims, claim: what theory says; ``claim=`` is for a metric with a single one.
        caveats: sentences every reader of the number should see.

    Raises:
        UsageError: for a bad name, unknown pairing, clashing series or claims, or a formula across rows.

    Example:
        >>> from analysis.columns import dg_d, d_d
        >>> Metric(name="curvature", units=Units(loss=1, distance=-2), value=dg_d / d_d).columns
        ('d_d', 'dg_d')
    """

    name: str
    units: Units
    value: pl.Expr
    title: str = ""
    paper: str = ""
    formula: str = ""
    pairings: tuple[str, ...] = ("previous",)
    series: tuple[Series, ...] = ()
    tolerance: pl.Expr | None = None
    claims: tuple[Claim, ...] = ()
    claim: InitVar[Claim | None] = None
    caveats: tuple[str, ...] = ()
    family: str = ""
    catalogue: tuple[str, ...] = ()
    blocks: Blocks = "trajectory"
    ratio: tuple[pl.Expr, pl.Expr] | None = None
    variants: tuple[Variant, ...] = ()

    def __post_init__(self, claim: Claim | None) -> None:
        def put(field: str, content: object) -> None:
            object.__setattr__(self, field, content)

        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise UsageError(f"Metric name {self.name!r}: expected lower case letters, digits and underscores.")
        if not isinstance(self.value, pl.Expr):
            found = type(self.value).__name__
            raise UsageError(f"Metric {self.name}: value must be a Polars expression over the columns, found {found}.")
        put("claims", tuple(self.claims) + ((claim,) if claim is not None else ()))
        put("title", self.title or self.name.replace("_", " "))
        put("formula", self.formula or str(self.value))
        if self.tolerance is None:
            put("tolerance", default_tolerance(self.value))
        self._check()

    def _check(self) -> None:
        check_row_by_row(f"Metric {self.name}: value", self.value)
        for part in self.ratio or ():
            check_row_by_row(f"Metric {self.name}: ratio", part)
        for variant in self.variants:
            check_row_by_row(f"Metric {self.name}: variant {variant.name}", variant.value)
        if self.blocks not in get_args(Blocks):
            raise UsageError(f"Metric {self.name}: blocks={self.blocks!r}; expected one of {get_args(Blocks)}.")
        if strange := set(self.pairings) - set(PAIRINGS):
            raise UsageError(f"Metric {self.name}: unknown pairings {sorted(strange)}; expected some of {PAIRINGS}.")
        for claim in self.claims:
            if strange := {p for p in claim.pairings if pairing_kind(p) not in self.pairings}:
                raise UsageError(
                    f"Metric {self.name}: claim {claim.name!r} is judged at {sorted(strange)}, and the metric is meant "
                    f"for {self.pairings}."
                )
        variants = [v.name for v in self.variants]
        columns = [s.name for s in self.series] + variants
        for kind, names, taken in (
            ("series and variants", columns, _TAKEN | set(COLUMNS)),
            ("variants", variants, _OF_WINDOWS),
            ("claims", [c.name for c in self.claims], _TAKEN),
        ):
            if len(set(names)) < len(names) or set(names) & taken:
                raise UsageError(
                    f"Metric {self.name}: names of {kind} must differ and not be one of {sorted(taken)}; found {names}."
                )

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Columns the value is computed from, read from the formula."""
        return tuple(sorted(set(self.value.meta.root_names())))

    @cached_property
    def all_columns(self) -> tuple[str, ...]:
        """Columns that value, tolerance, ratio, series, variants and claims read together."""
        parts = [self.value, self.tolerance, *(self.ratio or ()), *(s.of for s in self.series)]
        parts += [part for variant in self.variants for part in (variant.value, variant.summary)]
        for claim in self.claims:
            parts += [claim.quantity, claim.tolerance, claim.numerator, claim.denominator, claim.null_numerator]
            parts += [claim.margin, *claim.regressors, *(bias.amount for bias in claim.biases)]
        names = _roots(parts) | {caution.column for claim in self.claims for caution in claim.cautions}
        return tuple(sorted(names - {"value", "tolerance"}))

    @cached_property
    def reads_loss(self) -> bool:
        """Whether the formula has a loss in it, and so is not applicable on a block."""
        return bool(LOSSES & set(self.columns))

    @property
    def has_blocks(self) -> bool:
        """Whether the value means something on a single parameter tensor."""
        return self.blocks != "no" and not self.reads_loss

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything the stored tables depend on: formulas, tolerance, claims and version of the rules.

        Titles, paper, catalogue and caveats of the metric are read from the metric itself and do not count.
        """
        parts = [RULES, self.name, self.value, self.tolerance, self.pairings, self.blocks, self.ratio]
        parts += [(s.name, s.of) for s in self.series]
        parts += [(v.name, v.value, v.summary) for v in self.variants]
        return hashlib.sha256(repr(_plain([*parts, *self.claims])).encode()).hexdigest()[:16]


def claim_columns(metric: Metric, claim: Claim) -> tuple[str, ...]:
    """Columns that must be there for the claim to be judged."""
    if claim.over == "ratio":
        names = _roots([claim.numerator, claim.denominator])
    else:
        names = _roots([claim.quantity, claim.margin, *claim.regressors])
        names |= {"value"} if claim.quantity is None else set()
    if "value" in names:
        names |= set(metric.columns)
    return tuple(sorted(names - {"value", "tolerance"}))


def check_row_by_row(what: str, part: pl.Expr | None) -> None:
    """Refuse a formula across rows.

    Raises:
        UsageError: ``part`` aggregates or looks at other rows.
    """
    if part is not None and not _has(part, "is_row_separable", True):
        raise UsageError(f"{what} must be about one pair, row by row; found {part}.")


def _has(part: pl.Expr, quality: str, unknown: bool) -> bool:
    ask = getattr(part.meta, quality, None)  # not in older Polars
    return unknown if ask is None else bool(ask())


def _roots(parts: Iterable[pl.Expr | None]) -> set[str]:
    return {name for part in parts if part is not None for name in part.meta.root_names()}


def _plain(part: Any) -> Any:
    if isinstance(part, pl.Expr):
        return part.meta.serialize().hex()
    if isinstance(part, (tuple, list)):
        return tuple(_plain(each) for each in part)
    if is_dataclass(part):  # claims, biases, cautions: the repr of an expression has an address in it
        return tuple(_plain(getattr(part, field.name)) for field in fields(part))
    return part
