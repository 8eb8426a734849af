"""What became of a metric in each window of a run: the whole run, every epoch, every hundred steps.

A ratio is summarised by its sums, never by a mean of ratios. Missing and undefined pairs are counted apart and are part
of no number.
"""

import polars as pl

from analysis.columns import LOSSES, value
from analysis.metric import Metric, Variant
from analysis.rows import defined_or_nan, pairings_of, rows
from analysis.tables import MODEL, Tables

STEPS = 100
"""Length of the shortest windows, counted from step 0."""

_KEYS = ("pairing", "block", "window", "number")


def windows(metric: Metric, tables: Tables) -> pl.DataFrame:
    """One row per window, pairing and block.

    ``window`` is its kind ("run", "epoch", "steps:100") and ``number`` which one: the epoch as recorded, the first step
    over 100, 0 for the run. Steps without an epoch are in no window of that kind. ``first_step`` and ``last_step`` are
    of its rows; ``pairs`` are those with a defined value, ``undefined`` NaN, ``missing`` null. ``mean``, ``total``,
    ``smallest``, ``median``, ``largest`` are of the defined values; null where there is none. A metric with ``ratio``
    has ``numerator`` and ``denominator``, summed over the pairs that have both, and their ``ratio``. Each variant has
    its summary under its name, of the model's rows.

    Blocks have rows of their own where the metric means something there and no loss is read.

    It reads every block of the tables: seconds on a large run, so that it is computed where it is asked for.
    """
    parts = _windows(metric, tables, model=True)
    if metric.has_blocks and not _reads_loss_in_ratio(metric):
        parts = pl.concat([parts, _windows(metric, tables, model=False)], how="diagonal")
    order = {"run": 0, "epoch": 1, f"steps:{STEPS}": 2}
    return parts.sort("pairing", "block", pl.col("window").replace_strict(order, return_dtype=pl.Int8), "number")


def _reads_loss_in_ratio(metric: Metric) -> bool:
    return any(LOSSES & set(part.meta.root_names()) for part in metric.ratio or ())


def _windows(metric: Metric, tables: Tables, model: bool) -> pl.DataFrame:
    """Rows of the model alone, or of the blocks alone."""
    ratio, variants = metric.ratio or (), metric.variants if model else ()
    formulas = [metric.value, *ratio, *(v.value for v in variants)]
    needed = {name for part in formulas for name in part.meta.root_names()}
    found = rows(tables, [*sorted(needed), "epoch"], pairings_of([metric], tables), model=model)
    if not model:
        found = found.filter(pl.col("block") != MODEL)
    columns = {"numerator": ratio[0], "denominator": ratio[1]} if ratio else {}
    found = found.select(
        *("pairing", "block", "step", "epoch"),
        value=defined_or_nan(metric.value),
        **{name: defined_or_nan(part) for name, part in columns.items()},
        **{v.name: defined_or_nan(v.value) for v in variants},
    )
    table = found.collect()
    kinds = {
        "run": table.with_columns(number=pl.lit(0, pl.Int64)),
        "epoch": table.filter(pl.col("epoch").is_not_null()).with_columns(number=pl.col("epoch").cast(pl.Int64)),
        f"steps:{STEPS}": table.with_columns(number=pl.col("step") // STEPS),
    }
    return pl.concat(
        _summarised(part.with_columns(window=pl.lit(kind)), bool(ratio), variants) for kind, part in kinds.items()
    )


def _summarised(table: pl.DataFrame, ratio: bool, variants: tuple[Variant, ...]) -> pl.DataFrame:
    found = table.group_by(_KEYS).agg(_summaries(ratio))
    for variant in variants:
        own = table.with_columns(value=variant.name).filter(value.is_finite())  # a summary reads its variant's values
        summary = value.mean() if variant.summary is None else variant.summary
        numbers = own.group_by(_KEYS, maintain_order=True).agg(summary.cast(pl.Float64).alias(variant.name))
        found = found.join(numbers, on=_KEYS, how="left")
    return found


def _summaries(ratio: bool) -> list[pl.Expr]:
    defined = value.filter(value.is_finite())
    some = defined.len() > 0
    found = [
        pl.col("step").min().alias("first_step"),
        pl.col("step").max().alias("last_step"),
        defined.len().cast(pl.Int64).alias("pairs"),
        value.is_nan().sum().cast(pl.Int64).alias("undefined"),
        value.null_count().cast(pl.Int64).alias("missing"),
        defined.mean().alias("mean"),
        pl.when(some).then(defined.sum()).alias("total"),
        defined.min().alias("smallest"),
        defined.median().alias("median"),
        defined.max().alias("largest"),
    ]
    if ratio:
        above, below = pl.col("numerator"), pl.col("denominator")
        both = above.is_finite() & below.is_finite()  # null where either is missing: filtered out as well
        over, under = (pl.when(both.any()).then(part.filter(both).sum()) for part in (above, below))
        quotient = over / under
        found += [over.alias("numerator"), under.alias("denominator")]
        found.append(pl.when(quotient.is_finite()).then(quotient).otherwise(None).alias("ratio"))
    return found
