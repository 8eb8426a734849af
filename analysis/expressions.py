"""What a formula reads, and whether it is about one row or about all of them."""

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any

import polars as pl

from tracer.errors import UsageError


def check_row_by_row(what: str, part: pl.Expr | None) -> None:
    """Refuse a formula across rows.

    Raises:
        UsageError: ``part`` aggregates or looks at other rows.
    """
    if part is not None and not _has(what, part, "is_row_separable"):
        raise UsageError(f"{what} must be about one pair, row by row; found {part}.")


def check_one_number(what: str, part: pl.Expr | None) -> None:
    """Refuse a formula that gives a number per row where one number of all rows is meant.

    Raises:
        UsageError: ``part`` does not aggregate.
    """
    if part is not None and not _has(what, part, "is_scalar"):
        raise UsageError(f"{what} must be one number from all rows (a sum, a mean, …); found {part}.")


def _has(what: str, part: pl.Expr, quality: str) -> bool:
    ask = getattr(part.meta, quality, None)  # not in older Polars
    try:
        return ask is None or bool(ask())
    except pl.exceptions.PolarsError:  # it looks for columns, and there are no data yet
        raise UsageError(
            f"{what} calls a Python function, of which nobody can tell when it changes, or takes columns that it does "
            f"not name; found {part}. Write it with Polars expressions over named columns."
        ) from None


def roots(parts: Iterable[pl.Expr | None]) -> set[str]:
    """Columns that formulas read together."""
    return {name for part in parts if part is not None for name in part.meta.root_names()}


def plain(part: Any) -> Any:
    """``part`` with expressions and dataclasses as plain tuples: equal content, equal ``repr``."""
    if isinstance(part, pl.Expr):
        return part.meta.serialize().hex()
    if isinstance(part, (tuple, list)):
        return tuple(plain(each) for each in part)
    if is_dataclass(part):  # claims, biases, cautions: the repr of an expression has an address in it
        return tuple(plain(getattr(part, field.name)) for field in fields(part))
    return part
