"""Columns as arrays. A question to a column is a query for Polars; what its count of nulls answers costs none."""

import numpy as np
import numpy.typing as npt
import polars as pl

Flags = npt.NDArray[np.bool_]


def missing(column: pl.Series) -> Flags:
    """Where a column is null, shape ``(n,)``."""
    nulls = column.null_count()
    if nulls in (0, len(column)):
        return np.full(len(column), nulls > 0)
    return column.is_null().to_numpy()


def filled(column: pl.Series, instead: float) -> npt.NDArray[np.float64]:
    """A column of numbers as float64, shape ``(n,)``, with ``instead`` for what is null; NaN stays."""
    nulls = column.null_count()
    if nulls == 0:
        return column.to_numpy().astype(np.float64, copy=False)
    if nulls == len(column):
        return np.full(len(column), float(instead))
    return column.cast(pl.Float64).fill_null(instead).to_numpy()
