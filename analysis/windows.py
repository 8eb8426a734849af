"""What became of a metric in each window of a run: the whole run, every epoch, every hundred steps.

A ratio is summarised by its sums, never by a mean of ratios. Missing and undefined pairs are counted apart and are part
of no number.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from analysis.columns import LOSSES, value
from analysis.grid import Grid
from analysis.metric import Metric
from analysis.reductions import summaries, sums_of_pairs

STEPS = 100
"""Length of the shortest windows, counted from step 0."""

_COUNTS = ("pairs", "undefined", "missing")
_Numbers = npt.NDArray[Any]


def windows(metric: Metric, given: Grid) -> pl.DataFrame:
    """One row per block and window of one pairing.

    ``window`` is its kind ("run", "epoch", "steps:100") and ``number`` which one: the epoch as recorded, the first step
    over 100, 0 for the run. Steps without an epoch are in no window of that kind. ``first_step`` and ``last_step`` are
    of its rows; ``pairs`` are those with a defined value, ``undefined`` NaN, ``missing`` null. ``mean``, ``total``,
    ``smallest``, ``median``, ``largest`` are of the defined values; null where there is none. A metric with ``ratio``
    has ``numerator`` and ``denominator``, summed over the pairs that have both, and their ``ratio``.

    Args:
        metric: whose values are summarised.
        given: the value as a column, what its ratio reads, and the epoch of each step.
    """
    cut, rows = _stretches(given.steps["step"], given.steps["epoch"])
    starts, ends = cut["start"].to_numpy(), cut["end"].to_numpy()
    counts, found = summaries(*given.array(value), rows, starts, ends)
    with np.errstate(invalid="ignore"):
        mean = found[:, :, 0] / counts[:, :, 0]
    columns: dict[str, _Numbers] = {name: counts[:, :, i] for i, name in enumerate(_COUNTS)}
    columns |= {"mean": mean, **{n: found[:, :, i] for i, n in enumerate(("total", "smallest", "median", "largest"))}}
    if metric.ratio is not None:
        above, below = (given.array(part)[0] for part in metric.ratio)
        over, under = sums_of_pairs(above, below, rows, starts, ends)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = over / under
        columns |= {"numerator": over, "denominator": under, "ratio": np.where(np.isfinite(ratio), ratio, np.nan)}
    blocks = pl.DataFrame({"pairing": given.pairing, "block": given.blocks})
    named = blocks.join(cut.drop("start", "end"), how="cross", maintain_order="left_right")
    numbers = pl.DataFrame({name: of.ravel() for name, of in columns.items()}).fill_nan(None)
    return named.hstack(numbers)


def with_variants(metric: Metric, found: pl.DataFrame, model: pl.DataFrame) -> pl.DataFrame:
    """Windows of the model with each variant's summary under its name; null where it has no defined value.

    Args:
        metric: whose variants they are.
        found: as :func:`windows` gives them for the model.
        model: its rows, a column per variant.
    """
    cut, rows = _stretches(model["step"], model["epoch"])
    lengths = (cut["end"] - cut["start"]).to_numpy()
    window = pl.Series("window", np.repeat(np.arange(len(cut)), lengths))
    for variant in metric.variants:
        summary = value.mean() if variant.summary is None else variant.summary
        reads = dict.fromkeys(name for name in summary.meta.root_names() if name != "value")
        own = model.select(*reads, value=variant.name)[rows].with_columns(window).filter(value.is_finite())
        numbers = own.group_by("window", maintain_order=True).agg(summary.cast(pl.Float64).alias(variant.name))
        at = pl.DataFrame({"window": np.arange(len(cut))})
        found = found.with_columns(at.join(numbers, on="window", how="left", maintain_order="left")[variant.name])
    return found


def has_windows_of_blocks(metric: Metric) -> bool:
    """Whether a tensor's own windows mean something: its value does, and the ratio reads no loss."""
    return metric.has_blocks and not any(LOSSES & set(part.meta.root_names()) for part in metric.ratio or ())


def _stretches(step: pl.Series, epoch: pl.Series) -> tuple[pl.DataFrame, _Numbers]:
    """Windows with the stretch ``start`` to ``end`` that each has in an order of the rows, which is given beside them.

    Rows are in that order once for each kind of window; an epoch that was come back to is one window.
    """
    by_row = pl.DataFrame({"row": np.arange(len(step)), "step": step.cast(pl.Int64), "epoch": epoch.cast(pl.Int64)})
    number = {"run": pl.lit(0, pl.Int64), "epoch": pl.col("epoch"), f"steps:{STEPS}": pl.col("step") // STEPS}
    kinds = [
        by_row.select("row", "step", window=pl.lit(kind), number=of).drop_nulls("number").sort("number", "row")
        for kind, of in number.items()
    ]
    every = pl.concat(kinds)
    cut = every.group_by("window", "number", maintain_order=True).agg(
        first_step=pl.col("step").min(), last_step=pl.col("step").max(), length=pl.len().cast(pl.Int64)
    )
    end = cut["length"].cum_sum()
    return cut.drop("length").with_columns(start=end - cut["length"], end=end), every["row"].to_numpy()
