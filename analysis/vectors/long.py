"""Numbers of many steps and blocks to long tables: one row per step and block, held in memory or in files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

PART_ROWS = 1 << 18  # rows of a table that are turned into a frame at once

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rows:
    """Values of ``n`` steps, shape ``(n, width, columns)``, and which columns are missing there, ``(n, columns)``.

    The width is 1 + blocks, the model first, or 1 for the model alone. NaN is undefined, not missing.
    """

    steps: npt.NDArray[np.int64]
    values: Floats
    missing: Bools

    @classmethod
    def empty(cls, steps: npt.NDArray[np.int64], width: int, columns: int) -> "Rows":
        """All missing."""
        return cls(steps, np.full((len(steps), width, columns), np.nan), np.ones((len(steps), columns), bool))

    def __getitem__(self, chosen: slice | Bools) -> "Rows":
        """Some of the steps."""
        return Rows(self.steps[chosen], self.values[chosen], self.missing[chosen])

    def put(self, column: int, values: Floats, missing: Bools | bool = False) -> None:
        """Fill one column: ``values`` of shape ``(n, width)``, ``missing`` of shape ``(n,)``."""
        self.values[:, :, column] = values
        self.missing[:, column] = missing


def joined(parts: list[Rows]) -> Rows:
    """Rows one after the other; at least one part."""
    return Rows(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("steps", "values", "missing")))


class LateColumns:
    """Columns of a step that are known one step later: its row is held back until then.

    Args:
        columns: which ones.
    """

    def __init__(self, columns: list[int]) -> None:
        self._columns = columns
        self._held: Rows | None = None

    def complete(self, rows: Rows, late: Floats, late_missing: Bools, follows: bool) -> Rows:
        """The rows that are complete now, the one held back before them.

        Args:
            rows: of steps t, t + 1, …; without a gradient the last step has none.
            late: the columns of the steps t − 1, t, …, shape ``(n, width, columns)``, as known at t, t + 1, …
            follows: whether the row held back is that of step t − 1.
        """
        count, c = len(rows.steps), self._columns
        known = min(count, len(late) - 1)
        rows.values[:known, :, c] = late[1 : known + 1]
        rows.missing[:known, c] = late_missing[1 : known + 1]
        parts = [] if self._held is None else [self._held]
        if parts and follows:
            parts[0].values[:, :, c] = late[:1]
            parts[0].missing[:, c] = late_missing[:1]
        parts.append(rows[: max(count - 1, 0)])
        self._held = rows[count - 1 :] if count else None
        return joined(parts)

    def rest(self) -> list[Rows]:
        """The row held back last, if there is one."""
        return [] if self._held is None else [self._held]


class LongTable:
    """Rows in order of their steps, turned into frames a part at a time.

    Args:
        columns: their names.
        model_only: those of them that mean nothing on a block, and are null there.
        blocks: type of the column ``block``; the model is its first name.
        width: 1 + blocks, or 1 for the model alone.
        file: for tables that outgrow memory, a path to which parts are added as ``FILE-000000.parquet``.
    """

    def __init__(
        self, columns: tuple[str, ...], model_only: tuple[str, ...], blocks: pl.Enum, width: int, file: Path | None
    ) -> None:
        self._columns, self._model_only, self._width, self._file = columns, model_only, width, file
        self._names = pl.Series("block", blocks.categories[:width], blocks)
        self._waiting: list[Rows] = []
        self._steps = 0
        self._parts: list[pl.LazyFrame] = []

    def add(self, rows: Rows) -> None:
        """Take rows of later steps."""
        self._waiting.append(rows)
        self._steps += len(rows.steps)
        if self._steps * self._width >= PART_ROWS:
            self._flush(self._file)

    def frame(self) -> pl.LazyFrame:
        """The whole table: step, block and the columns."""
        if self._waiting or not self._parts:
            self._flush(None)
        return pl.concat(self._parts, rechunk=False)

    def _flush(self, file: Path | None) -> None:
        none = Rows.empty(np.empty(0, np.int64), self._width, len(self._columns))
        frame = self._long(joined([none, *self._waiting]))
        self._waiting, self._steps = [], 0
        if file is None:
            self._parts.append(frame.lazy())
        else:
            path = file.with_name(f"{file.name}-{len(self._parts):06d}.parquet")
            frame.write_parquet(path, compression="lz4")
            self._parts.append(pl.scan_parquet(path, glob=False))

    def _long(self, rows: Rows) -> pl.DataFrame:
        width, flat = self._width, np.ascontiguousarray(rows.values.reshape(-1, len(self._columns)).T)
        block = np.tile(np.arange(width, dtype=np.uint32), len(rows.steps))
        given: dict[str, npt.NDArray[Any]] = {"step": np.repeat(rows.steps, width), "of model": block == 0}
        columns: list[pl.Expr | str] = ["step", pl.lit(self._names).gather("block").alias("block")]
        for i, name in enumerate(self._columns):
            missing = rows.missing[:, i]
            if missing.all() and len(missing):
                columns.append(pl.lit(None, pl.Float64).alias(name))
                continue
            given[name] = flat[i]
            there = []
            if missing.any():
                given[f"{name} there"] = np.repeat(~missing, width)
                there.append(f"{name} there")
            if name in self._model_only and width > 1:
                there.append("of model")
            columns.append(pl.when(*there).then(name).alias(name) if there else name)
        return pl.DataFrame({**given, "block": block}).select(columns)
