"""Exact identities: what they are, and how far rounding may take them.

The tolerance of an identity is ``50 u √d`` times the magnitude of its terms, with ``u = 2⁻⁵³`` (the kernels sum in
double precision) and ``d`` the number of parameters: rounding errors of a sum of ``d`` products stay below ``λ √d u``
times its magnitude with probability at least ``1 − 2 exp(−λ²/2)`` if they are independent with mean zero (Higham, Mary
2019), here λ = 50, and below the worst case ``d u`` for every ``d`` up to 2500. A single wrong bit of a float32 number
in a trace is 10⁻⁷, far above it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from analysis.rounding import ROUNDOFF

Number = float | int | str
TOLERANCE = 50 * ROUNDOFF["float64"]


@dataclass(frozen=True)
class CheckResult:
    """One check of one trace.

    Args:
        name: short name.
        passed: whether it holds; False with severity "warn" where nothing could be tested.
        severity: "error" for broken data, "warn" for something to look at.
        description: what was tested and found, in words.
        numbers: rows tested, worst residual in tolerances, its step and block, and the like.
    """

    name: str
    passed: bool
    severity: Literal["error", "warn"]
    description: str
    numbers: dict[str, Number]


@dataclass(frozen=True, eq=False)
class Part:
    """``residual`` must not exceed ``50 u`` times ``magnitude`` plus ``allowance``; times √d if ``sums`` of products.

    Args:
        residual, magnitude, allowance: row by row. Rows where one of them is missing or not finite are not tested.
        label: what is compared, where an identity has several parts.
        sums: whether it compares sums over coordinates.
    """

    residual: pl.Expr
    magnitude: pl.Expr
    allowance: pl.Expr | None = None
    label: str = ""
    sums: bool = True


@dataclass(frozen=True, eq=False)
class Identity:
    """Something that is true of every sound trace, in one or several parts."""

    name: str
    says: str
    parts: tuple[Part, ...]


def cauchy_schwarz(product: pl.Expr, one: pl.Expr, other: pl.Expr, label: str = "") -> Part:
    """|⟨a, b⟩| ≤ ‖a‖ ‖b‖, from the product and the squared norms; roots first, for squares of squares overflow."""
    most = one.sqrt() * other.sqrt()
    return Part(product.abs() - most, most, label=label)


def evaluate(identities: Sequence[Identity], rows: pl.LazyFrame, parameters: int) -> list[CheckResult]:
    """Test identities on rows that have ``pairing``, ``step`` and ``block``, all of them in one query.

    Args:
        identities: to be tested.
        rows: one row per tested case.
        parameters: ``d``.
    """
    parts = [(i, j, part) for i, identity in enumerate(identities) for j, part in enumerate(identity.parts)]
    tested = rows.select(
        pl.col("pairing", "block").cast(pl.String),
        "step",
        *(_in_tolerances(part, parameters).alias(f"{i} {j}") for i, j, part in parts),
    )
    found = tested.select(pl.struct(*_summary(pl.col(f"{i} {j}"))).alias(f"{i} {j}") for i, j, _ in parts).collect()
    of = {name: found[name].item() for name in found.columns} if len(found) else {}
    return [
        _result(identity, [(part, of.get(f"{i} {j}")) for j, part in enumerate(identity.parts)], parameters)
        for i, identity in enumerate(identities)
    ]


def tolerance(part: Part, parameters: int) -> float:
    """What ``part.magnitude`` is multiplied by."""
    return TOLERANCE * (math.sqrt(max(parameters, 1)) if part.sums else 1.0)


def _in_tolerances(part: Part, parameters: int) -> pl.Expr:
    allowed = tolerance(part, parameters) * part.magnitude
    if part.allowance is not None:
        allowed = allowed + part.allowance
    # a residual where every term is zero is infinitely many tolerances
    nothing = pl.when(part.residual > 0).then(math.inf).otherwise(0.0)
    ratio = pl.when(allowed > 0).then(part.residual / allowed).otherwise(nothing)
    # what is missing or undefined is no broken identity; the check "finite" reports it
    return pl.when(part.residual.is_finite() & allowed.is_finite()).then(ratio)


def _summary(ratio: pl.Expr) -> list[pl.Expr]:
    at = [pl.col(name).filter(ratio == ratio.max()).first() for name in ("step", "block", "pairing")]
    return [ratio.count().alias("rows"), (ratio > 1).sum().alias("failed"), ratio.max().alias("worst"), *at]


def _result(identity: Identity, found: list[tuple[Part, dict[str, Any] | None]], parameters: int) -> CheckResult:
    tested = [(part, row) for part, row in found if row is not None and row["rows"]]
    n, failed = sum(row["rows"] for _, row in tested), sum(row["failed"] for _, row in tested)
    if n == 0:
        text = f"{identity.says}: not tested, there are no such rows"
        return CheckResult(identity.name, False, "warn", text, {"rows": 0})
    part, at = max(tested, key=lambda pair: pair[1]["worst"])
    block = f"{at['block']} ({part.label})" if part.label else str(at["block"])
    numbers: dict[str, Number] = {
        "rows": n,
        "rows_failed": failed,
        "worst_in_tolerances": max(at["worst"], 0.0),
        "step": at["step"],
        "block": block,
        "pairing": str(at["pairing"]),
        "relative_tolerance": tolerance(part, parameters),
    }
    if failed:
        text = (
            f"{failed} of {n} rows break it, worst at step {at['step']}, block {block}: {at['worst']:.3g} times the "
            "tolerance. The data are broken; record the run again or restore it from a sound copy"
        )
        return CheckResult(identity.name, False, "error", f"{identity.says}: {text}", numbers)
    return CheckResult(identity.name, True, "error", f"{identity.says}: holds in {n} rows to rounding", numbers)
