"""A metric: one formula over the numbers of a pair, and what theory claims of it.

A metric is a value, not a function: it can be printed, compared and fingerprinted, and everything else (asset, check,
catalogue page, law tests) is derived from it.
"""

import hashlib
import re
from dataclasses import InitVar, dataclass
from functools import cached_property
from typing import Literal, get_args

import polars as pl

from analysis.claim import Bias as Bias
from analysis.claim import Caution as Caution
from analysis.claim import Claim as Claim
from analysis.columns import COLUMNS, LOSSES, Units
from analysis.expressions import check_row_by_row, plain, roots
from analysis.rounding import default_tolerance
from analysis.series import Series
from analysis.tables import PAIRINGS, pairing_kind
from tracer.errors import UsageError

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
RULES = 5
"""Version of the rules that turn values into verdicts; raised when a rule changes, so that verdicts turn stale."""
_TAKEN = {"pairing", "step", "block", "value", "tolerance"}
_OF_WINDOWS = {"window", "number", "first_step", "last_step", "pairs", "undefined", "missing", "mean", "total"} | {
    "smallest", "median", "largest", "numerator", "denominator", "ratio"
}  # fmt: skip


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
        names = roots(parts) | {caution.column for claim in self.claims for caution in claim.cautions}
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
        return hashlib.sha256(repr(plain([*parts, *self.claims])).encode()).hexdigest()[:16]


def claim_columns(metric: Metric, claim: Claim) -> tuple[str, ...]:
    """Columns that must be there for the claim to be judged."""
    if claim.over == "ratio":
        names = roots([claim.numerator, claim.denominator])
    else:
        names = roots([claim.quantity, claim.margin, *claim.regressors])
        names |= {"value"} if claim.quantity is None else set()
    if "value" in names:
        names |= set(metric.columns)
    return tuple(sorted(names - {"value", "tolerance"}))
