"""What stands behind a metric's verdicts, for reading: its windows, its parameter tensors, and its reference points.

The tables of a long run are long. A page has the windows of the whole model and the tensors that a reader looks for
first, those beyond the bound; it says how many rows it leaves out. None of them is a verdict on the run.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from analysis.judging.battery import CONTROLS, NOT_APPLICABLE, battery
from analysis.judging.verdict import FAILS, HOLDS, INCONCLUSIVE
from analysis.metric import Metric
from analysis.pages.grouped import points
from analysis.tables import MODEL, REFERENCE

ROWS_MOST = 40  # of one table on a page
UNFOLDED_MOST = 8  # tensors that need no fold
_KINDS = ("run", "epoch")  # shorter windows come after these
_COLUMNS = ("pairs", "mean", "median", "smallest", "largest")
_ORDER = (FAILS, INCONCLUSIVE, HOLDS)
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Details:
    """Tables of a metric as :class:`analysis.measure.Measurement` has them; None where nothing was measured."""

    windows: pl.DataFrame | None = None
    blocks: pl.DataFrame | None = None


@dataclass(frozen=True)
class Shown:
    """Rows of a table on a page.

    Args:
        columns: names of the numbers in a row.
        rows: those that are shown.
        left_out: how many more there are.
    """

    columns: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    left_out: int = 0


def windows_shown(metric: Metric, details: Details) -> Shown:
    """Windows of the whole model that have a value, the longest first; unpaired ones are left to the file."""
    if details.windows is None:
        return Shown()
    here = (pl.col("block") == MODEL) & (pl.col("pairs") > 0) & (pl.col("pairing") != "unpaired")
    table = details.windows.filter(here)
    rank = pl.col("window").replace_strict(dict(zip(_KINDS, range(2), strict=True)), default=2, return_dtype=pl.Int8)
    columns = (*_COLUMNS, *(["ratio"] if metric.ratio is not None else []), *(v.name for v in metric.variants))
    return _cut(columns, table.sort(rank, maintain_order=True))


def tensors_shown(metric: Metric, details: Details) -> Shown:
    """What the run as a whole gave for each parameter tensor."""
    if details.windows is None:
        return Shown()
    table = details.windows.filter((pl.col("block") != MODEL) & (pl.col("pairs") > 0) & (pl.col("window") == "run"))
    return _cut((*_COLUMNS, *(["ratio"] if metric.ratio is not None else [])), table)


def tensors_judged(details: Details) -> Shown:
    """Verdicts on parameter tensors, as :func:`worst_first` orders them."""
    if details.blocks is None:
        return Shown()
    return _cut(("estimate", "lower", "upper", "p_value", "adjusted"), worst_first(details.blocks))


def worst_first(blocks: pl.DataFrame) -> pl.DataFrame:
    """Tensors beyond the bound first, then the undecided ones, and among equals the surest."""
    rank = pl.col("status").replace_strict(dict(zip(_ORDER, range(3), strict=True)), return_dtype=pl.Int8)
    return blocks.sort(rank, "adjusted", nulls_last=True, maintain_order=True)


def tensors_counted(rows: Iterable[Row]) -> list[str]:
    """A sentence per claim and pairing: how many tensors were tested and what came of them."""
    table = pl.DataFrame(list(rows), infer_schema_length=None)
    if table.is_empty():
        return []
    counts = table.group_by("claim", "pairing", maintain_order=True).agg(
        tested=pl.col("p_value").is_not_null().sum(),
        fails=(pl.col("status") == FAILS).sum(),
        holds=(pl.col("status") == HOLDS).sum(),
        every=pl.len(),
    )
    return [
        f"{row['claim']} ({points(row['pairing'])}): {row['tested']} of {row['every']} tensors tested, {FAILS} at "
        f"{row['fails']}, {HOLDS} at {row['holds']}"
        for row in counts.iter_rows(named=True)
    ]


def battery_shown(verdicts: Sequence[pl.DataFrame]) -> tuple[list[str], list[Row]]:
    """The reference points that were judged, negative controls last; and per claim what each of them answers.

    A row has metric, claim, ``robust`` or not, what that means, and the status by reference; claims that apply at none
    are left out.
    """
    every = pl.concat(verdicts, how="vertical_relaxed").select("run_id", "metric", "claim", "pairing", "status")
    of_references = every.filter(pl.col("pairing").str.starts_with(REFERENCE))
    answers: dict[tuple[str, str], dict[str, str]] = {}
    for metric, claim, pairing, status in of_references.select("metric", "claim", "pairing", "status").iter_rows():
        answers.setdefault((metric, claim), {})[pairing.removeprefix(REFERENCE)] = status
    rows = [
        {**row, "answers": answers[row["metric"], row["claim"]], "meaning": row["reason"].partition(":")[0]}
        for row in battery(of_references).to_dicts()
        if row["status"] != NOT_APPLICABLE
    ]
    names = dict.fromkeys(name for row in rows for name in row["answers"])
    return sorted(names, key=lambda name: name in CONTROLS), rows


def _cut(columns: tuple[str, ...], table: pl.DataFrame) -> Shown:
    return Shown(columns, tuple(table.head(ROWS_MOST).to_dicts()), max(0, len(table) - ROWS_MOST))
