"""What becomes of a metric's values along a run: running means, exponential means, maxima, sums.

A series passes over missing (null) and undefined (NaN) values: they neither count as zero nor spoil what comes later,
and at such a row the series itself is null. Each is a Polars expression over one pairing and block in order of steps.
"""

from dataclasses import dataclass
from typing import Literal

import polars as pl

from analysis.columns import value

Role = Literal["average", "extreme", "cumulative", "limit", "beside"]


@dataclass(frozen=True, eq=False)
class Series:
    """A column beside a metric's value.

    Args:
        name: the column's name in the metric's table.
        title: what a figure's legend says.
        of: the expression, over ``value`` and the columns of the tables.
        role: how it is drawn: "average" and "extreme" over the values, "cumulative" in a panel of its own, "limit" as
            a line that the values are compared with, "beside" not at all: it stands in the table.
        claim: for a limit, the name of the claim it belongs to; it is drawn where that claim applies.
    """

    name: str
    title: str
    of: pl.Expr
    role: Role = "average"
    claim: str = ""


_defined = value.fill_nan(None)


def running_mean() -> Series:
    """Mean of all values so far."""
    return Series("running_mean", "running mean", _defined.cum_sum() / _defined.is_not_null().cum_sum())


def exponential_mean(c: float = 0.99, name: str = "exponential_mean", role: Role = "average") -> Series:
    """Exponential mean with factor ``c``, corrected for its start: ``v_n / (1 − cⁿ)``, ``v_n = c v_{n−1} + (1−c) q_n``.

    The uncorrected mean of a constant C after n values is ``(1 − cⁿ) C``. The effective window is ``(1+c)/(1−c)``
    values: 199 for 0.99.
    """
    window = (1 + c) / (1 - c)
    title = f"exponential mean, factor {c:g}, bias-corrected (effective window {window:.0f})"
    return Series(name, title, _defined.ewm_mean(alpha=1 - c, adjust=True, ignore_nulls=True), role)


def zero_start_mean(c: float = 0.9999) -> Series:
    """Exponential mean from zero, not corrected for its start, begun again in each epoch.

    As the authors' scripts of 2023 logged it: a constant C is ``(1 − cⁿ) C`` after n values of an epoch, so that with
    ``c`` = 0.9999 an epoch of fewer than 10 000 steps shows less than 63 % of it. Without epochs the run is one.
    """
    epoch = pl.col("epoch")
    corrected = _defined.ewm_mean(alpha=1 - c, adjust=True, ignore_nulls=True).over(epoch)
    count = _defined.is_not_null().cum_sum().over(epoch)
    title = f"exponential mean, factor {c:g}, from zero in each epoch, not corrected (authors' scripts of 2023)"
    return Series("zero_start_mean", title, corrected * (1 - pl.lit(c).pow(count)), role="beside")


def running_max() -> Series:
    """Largest value so far. It can only grow, and grows with the number of steps: it has no confidence interval."""
    return Series("running_max", "running maximum", _defined.cum_max(), role="extreme")


def cumulative(name: str = "cumulative", title: str = "cumulative sum", of: pl.Expr = value) -> Series:
    """Sum of ``of`` over the rows where both it and the metric's value are defined."""
    both = pl.when(_defined.is_not_null()).then(of.fill_nan(None))
    return Series(name, title, both.cum_sum(), role="cumulative")


def limit(name: str, title: str, of: pl.Expr, claim: str) -> Series:
    """A line the values are compared with by the claim named ``claim``."""
    return Series(name, title, of, role="limit", claim=claim)
