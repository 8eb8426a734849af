"""The parameter tensors of one pairing as a rectangle: every column a number per step and tensor.

A run of 100,000 steps has ten million rows for a hundred tensors. Sorting and joining them takes longer than everything
that is then computed, and there is no need: as the tables are written, the rows of a step stand together, the tensors
always in the same order. So columns are put side by side where that is so, and joined only where it is not.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from analysis.columns import REPLAY
from analysis.rows import joined
from analysis.tables import MODEL, Tables

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
_KEYS = ("step", "block")
_THERE = "there is a row"


@dataclass(frozen=True, eq=False)
class Grid:
    """Columns of ``n`` steps and ``k`` blocks.

    Args:
        pairing: its name.
        blocks: names of the ``k`` blocks.
        steps: a row per step, in their order: ``step`` and what else is known of a step.
        frame: the columns; all blocks of a step stand together.
        before: how many further rows each step begins with, of the model, which is not meant.
    """

    pairing: str
    blocks: tuple[str, ...]
    steps: pl.DataFrame
    frame: pl.DataFrame
    before: int = 0

    def with_columns(self, **formulas: pl.Expr) -> "Grid":
        """With a column more for each formula over the columns there are."""
        return replace(self, frame=self.frame.with_columns(**formulas))

    def array(self, formula: pl.Expr) -> tuple[Floats, Flags]:
        """A formula, shape ``(n, k)``, NaN where it is missing; and where that is, ``(0, 0)`` if nowhere."""
        found = self.frame.with_columns_seq(formula.cast(pl.Float64).alias("found"))["found"]
        shape = len(self.steps), self.before + len(self.blocks)
        missing = found.is_null().to_numpy().reshape(shape) if found.null_count() else np.empty((0, 0), np.bool_)
        return found.to_numpy().reshape(shape)[:, self.before :], missing[:, self.before :]


def grids(tables: Tables, needed: Iterable[str], rows_of_model: Mapping[str, int]) -> Iterator[Grid]:
    """Every parameter tensor at the pairings that have rows of them, one pairing after another.

    Where a tensor has no row at a step at which another one has, its columns are missing.

    Args:
        tables: of one run.
        needed: columns of any table, derived ones included.
        rows_of_model: the pairings to read, and how many rows the model has there: no more rows, no tensors.
    """
    runs = tables.geometry.select(pl.col("pairing").rle()).unnest("pairing").collect()
    runs = runs.with_columns(pl.col("value").cast(pl.String), start=pl.col("len").cum_sum() - pl.col("len"))
    for pairing, of_model in rows_of_model.items():
        here = runs.filter(value=pairing)
        if here["len"].sum() > of_model:
            part = tables.geometry.filter(pl.col("pairing").cast(pl.String) == pairing)
            if len(here) == 1:  # a stretch of the file is read without looking at the rest
                part = tables.geometry.slice(here["start"][0], here["len"][0])
            yield _grid(tables, part, pairing, [n for n in dict.fromkeys(needed) if n not in ("pairing", *_KEYS)])


def _grid(tables: Tables, part: pl.LazyFrame, pairing: str, needed: list[str]) -> Grid:
    there, path = part.collect_schema(), tables.path.collect_schema()
    in_path = [name for name in needed if name in path and name not in there]
    table = part.select(*_KEYS, *(name for name in needed if name in there)).collect()
    table = table if _width(table) else _filled(table)
    width = _width(table)
    keys, blocks = table.select(_KEYS), table["block"].head(width).cast(pl.String).to_list()
    columns = [table.drop(_KEYS)]
    if in_path:
        columns.append(_from_path(tables, in_path, keys, width))
    # what was replayed may differ from tensor to tensor
    in_replay = [name for name in needed if name in REPLAY and name not in there and name not in in_path]
    keys = keys.with_columns(pairing=pl.lit(pairing, there["pairing"]))
    if in_replay:
        columns.append(joined(keys.lazy(), tables.path, tables, in_replay).select(in_replay).collect())
    of_steps = [name for name in needed if name not in there and name not in (*in_path, *in_replay)]
    steps = keys.gather_every(width)
    steps = joined(steps.lazy(), tables.path.select(_KEYS), tables, [*of_steps, "epoch"]).collect()
    if of_steps:
        columns.append(steps.select(of_steps)[np.repeat(np.arange(len(steps)), width)])
    before, frame = int(blocks[0] == MODEL), pl.concat(columns, how="horizontal")
    if _THERE in frame:
        frame = frame.select(pl.when(_THERE).then(pl.all().exclude(_THERE)))
    return Grid(pairing, tuple(blocks[before:]), steps, frame, before)


def _width(table: pl.DataFrame) -> int:
    """How many blocks each step has, the model first if it is there; 0 where they are not all alike or in order."""
    step, block = table["step"].to_numpy(), table["block"].to_physical().to_numpy()
    others = np.flatnonzero(step != step[:1])
    width = int(others[0]) if len(others) else len(step)
    if not width or len(step) % width:
        return 0
    of_steps, of_blocks = step.reshape(-1, width), block.reshape(-1, width)
    alike = (of_steps == of_steps[:, :1]).all() and (of_blocks == of_blocks[:1]).all()
    distinct = (np.diff(of_steps[:, 0]) > 0).all() and len(set(of_blocks[0])) == width
    model_first = MODEL not in table["block"].head(width).cast(pl.String)[1:]
    return width if alike and distinct and model_first else 0


def _filled(table: pl.DataFrame) -> pl.DataFrame:
    """Every tensor at every step, without the model; with nulls where there was no row."""
    table = table.filter(pl.col("block").cast(pl.String) != MODEL)
    steps, blocks = (table.select(pl.col(name).unique().sort()) for name in _KEYS)
    every = steps.join(blocks, how="cross", maintain_order="left_right")
    return every.join(table.with_columns(pl.lit(True).alias(_THERE)), on=_KEYS, how="left", maintain_order="left")


def _from_path(tables: Tables, columns: list[str], keys: pl.DataFrame, width: int) -> pl.DataFrame:
    """Columns of the path table at the steps and blocks ``keys``, ``width`` to a step."""
    path = tables.path.select(*_KEYS, *columns).collect()
    of_path, at = path["step"].gather_every(width).to_numpy(), keys["step"].gather_every(width).to_numpy()
    if _width(path) == width and path["block"].head(width).equals(keys["block"].head(width)):
        rows = np.searchsorted(of_path, at)
        if rows[-1] < len(of_path) and (of_path[rows] == at).all():
            if rows[-1] - rows[0] == len(rows) - 1:  # consecutive, as nearly always: nothing is copied
                return path.slice(rows[0] * width, len(rows) * width).select(columns)
            return path.select(columns)[(rows[:, None] * width + np.arange(width)).ravel()]
    named = [table.with_columns(pl.col("block").cast(pl.String)) for table in (keys, path)]
    return named[0].join(named[1], on=_KEYS, how="left", maintain_order="left").select(columns)
