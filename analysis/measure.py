"""Metrics over one run: their tables, their verdicts, and what became of them by window and by block."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import polars as pl

from analysis.judging.blocks import BLOCKS_SCHEMA, blocks, columns, judged_by_block, with_blocks
from analysis.judging.grid import Grid, grids
from analysis.judging.verdict_table import VERDICT_SCHEMA as VERDICT_SCHEMA
from analysis.judging.verdict_table import verdicts
from analysis.judging.windows import has_windows_of_blocks, windows, with_variants
from analysis.metric import Metric
from analysis.rows import KEYS, defined_or_nan, pairings_of, rows
from analysis.tables import MODEL, Tables
from tracer.errors import UsageError


@dataclass(frozen=True, eq=False)
class Measurement:
    """What a metric gives on a run.

    Args:
        table: one row of the whole model per pairing and step: ``value`` (null missing, NaN undefined), ``tolerance``
            (what rounding alone can do to it), a column per series and per variant.
        verdicts: one row per claim and pairing, columns as in ``VERDICT_SCHEMA``; nothing is said of blocks there.
        metric, tables: what was measured on what.
        frames: by pairing, the rows of the model in order of steps with every column that the metric reads.

    What reads every block of the tables, seconds on a large run, is computed where it is asked for, once.
    """

    table: pl.DataFrame
    verdicts: pl.DataFrame
    metric: Metric = field(repr=False)
    tables: Tables = field(repr=False)
    frames: dict[str, pl.DataFrame] = field(repr=False)

    @cached_property
    def windows(self) -> pl.DataFrame:
        """The run, each epoch, every hundred steps, of the model and each tensor; see :mod:`analysis.judging.windows`.

        A column per variant more, of the model.
        """
        parts = []
        for pairing, frame in self.frames.items():
            of_model = windows(self.metric, Grid(pairing, (MODEL,), frame[["step", "epoch"]], frame))
            parts.append(with_variants(self.metric, of_model, frame))
            parts += [part for part in [self._tensors.windows.get(pairing)] if part is not None]
        return pl.concat(parts, how="diagonal")

    @property
    def blocks(self) -> pl.DataFrame:
        """Every parameter tensor judged by itself; see :mod:`analysis.judging.blocks`."""
        return self._tensors.blocks

    @cached_property
    def _tensors(self) -> "_Tensors":
        return _tensors(self.metric, self.tables, {pairing: len(frame) for pairing, frame in self.frames.items()})

    @property
    def verdicts_with_blocks(self) -> pl.DataFrame:
        """The verdicts, with how many tensors were tested and how many are beyond the bound."""
        return with_blocks(self.verdicts, self.blocks)


@dataclass(frozen=True, eq=False)
class ModelRows:
    """Rows of the whole model with every column that some metrics read: read once, measured many times.

    Args:
        by_pairing: in order of steps.
        none: the same columns without rows.
    """

    by_pairing: dict[str, pl.DataFrame]
    none: pl.DataFrame


def model_rows(metrics: Iterable[Metric], tables: Tables) -> ModelRows:
    """What these metrics read of the model's rows, at every pairing that one of them is measured at."""
    chosen = list(metrics)
    needed = {name for metric in chosen for name in metric.all_columns} | {"d_d", "epoch"}
    model = rows(tables, sorted(needed), pairings_of(chosen, tables), model=True).collect()
    by_pairing = {str(part["pairing"][0]): part for part in model.partition_by("pairing", maintain_order=True)}
    return ModelRows(by_pairing, model.clear())


def measure(metric: Metric, tables: Tables, model: ModelRows | None = None) -> Measurement:
    """Compute the metric and judge its claims.

    Args:
        metric: the record.
        tables: of one run.
        model: rows of these tables that were read for this metric and others; read here unless given.

    Raises:
        UsageError: the formula cannot be computed. A missing column is no error but a verdict NOT APPLICABLE.
    """
    return _measured(metric, model or model_rows([metric], tables), tables)


def measure_all(metrics: Iterable[Metric], tables: Tables) -> dict[str, Measurement]:
    """All metrics of one run, by name; what several of them read is read once.

    Raises:
        UsageError: a formula cannot be computed.
    """
    chosen = list(metrics)
    model = model_rows(chosen, tables)
    return {metric.name: measure(metric, tables, model) for metric in chosen}


def values(metric: Metric, tables: Tables) -> pl.LazyFrame:
    """pairing, step, block, value of every block; a formula that reads a loss has rows of the model only."""
    found = rows(tables, metric.columns, pairings_of([metric], tables), model=not metric.has_blocks)
    return found.select("pairing", "step", "block", value=defined_or_nan(metric.value))


def _measured(metric: Metric, model: ModelRows, tables: Tables) -> Measurement:
    wanted = pairings_of([metric], tables)
    try:
        frames = {name: _with_values(metric, part) for name, part in model.by_pairing.items() if name in wanted}
        empty = _with_values(metric, model.none)
        columns = [*KEYS, "value", "tolerance", *(s.name for s in metric.series), *(v.name for v in metric.variants)]
        table = pl.concat(frame[columns] for frame in [empty, *frames.values()])  # select() would plan a query
        shown = frames or {metric.pairings[0]: empty}
        return Measurement(table, verdicts(metric, frames, empty, tables), metric, tables, shown)
    except pl.exceptions.PolarsError as error:
        raise UsageError(f"Metric {metric.name}: {metric.value} cannot be computed: {error}") from error


@dataclass(frozen=True)
class _Tensors:
    """What the parameter tensors of a run say: windows by pairing, and verdicts."""

    windows: dict[str, pl.DataFrame]
    blocks: pl.DataFrame


def _tensors(metric: Metric, tables: Tables, rows_of_model: dict[str, int]) -> _Tensors:
    """Windows and verdicts of every parameter tensor, from one read of what they need."""
    claims, in_windows = judged_by_block(metric, tables), has_windows_of_blocks(metric)
    of_windows: dict[str, pl.DataFrame] = {}
    judged = [pl.DataFrame(schema=BLOCKS_SCHEMA)]
    formulas = [metric.value, *((metric.ratio or ()) if in_windows else ())]
    formulas += [metric.tolerance] if claims and metric.tolerance is not None else []
    needed = {name for part in formulas for name in part.meta.root_names()}.union({"d_d"}, *map(columns, claims))
    for given in grids(tables, sorted(needed), rows_of_model) if metric.has_blocks else ():
        given = given.with_columns(value=defined_or_nan(metric.value))
        if in_windows:
            of_windows[given.pairing] = windows(metric, given)
        if claims:
            tolerance = pl.lit(None) if metric.tolerance is None else metric.tolerance
            judged.append(blocks(claims, metric, given.with_columns(tolerance=tolerance.cast(pl.Float64))))
    return _Tensors(of_windows, pl.concat(judged))


def _with_values(metric: Metric, part: pl.DataFrame) -> pl.DataFrame:
    """Rows of one pairing in order of steps with value, tolerance, series and variants."""
    tolerance = pl.lit(None) if metric.tolerance is None else metric.tolerance
    part = part.with_columns_seq(value=defined_or_nan(metric.value), tolerance=tolerance.cast(pl.Float64))
    more = [s.of.cast(pl.Float64).alias(s.name) for s in metric.series]
    more += [defined_or_nan(v.value).alias(v.name) for v in metric.variants]
    return part.with_columns_seq(more) if more else part  # handing each to a thread takes longer than most formulas
