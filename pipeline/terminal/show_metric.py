"""What the terminal shows of one metric of a run: its verdicts, each with its reason, and every parameter tensor."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.pages.details import tensors_counted, worst_first
from analysis.pages.grouped import points
from analysis.registry import metrics
from analysis.tables import TableStore
from pipeline.results import details, measurements
from pipeline.terminal.show import COLOURS, coloured, number
from tracer.errors import UsageError

Row = Mapping[str, Any]


def describe_metric(tables_root: Path, run_id: str, name: str) -> dict[str, Any]:
    """Verdicts of a metric, windows of the run and what its tensors say, as plain JSON values; undefined is null.

    Raises:
        UsageError: there is no such metric, or it has not been computed for this recording and this formula.
        FormatError: nothing has been computed for the run.
    """
    known, store = metrics(), TableStore(tables_root, run_id)
    if name not in known:
        raise UsageError(f"{name}: no such metric. There are {', '.join(sorted(known))}.")
    found = measurements(store, {name: known[name]})
    if not found:
        raise UsageError(
            f"{run_id}: {name} has not been computed for what is recorded and claimed now. Run `lemmata materialize "
            f"{run_id} --metric {name}`."
        )
    beside = details(store, [name])[name]
    metric, _, verdicts = found[name]
    return {
        "run_id": run_id,
        "metric": name,
        "title": metric.title,
        "formula": metric.formula,
        "unit": str(metric.units),
        "verdicts": _plain(verdicts),
        "windows": _plain(beside.windows),
        "blocks": _plain(None if beside.blocks is None else worst_first(beside.blocks)),
    }


def print_metric(console: Console, found: Row) -> None:
    """As :func:`describe_metric` gives it, without the windows; the tensors beyond the bound first."""
    console.print(Text(f"{found['title']} ({found['metric']}), {found['run_id']}", "bold"))
    console.print(Text(f"{found['formula']}  [{found['unit']}]"))
    console.print()
    for row in found["verdicts"]:
        if row["pairing"] != "unpaired":
            where = f"  {row['claim']} ({points(row['pairing'])}): {row['reason']}"
            console.print(Text.assemble(coloured(row), where))
    if found["blocks"]:
        console.print()
        console.print(Text("Parameter tensors judged by themselves", "bold"))
        for sentence in tensors_counted(found["blocks"]):
            console.print(Text(sentence, "dim"))
        console.print(_tensors(found["blocks"]))


def _tensors(rows: Iterable[Row]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("verdict", "tensor", "claim", "points"):
        table.add_column(name, overflow="fold")
    for name in ("estimate", "interval", "adjusted p"):
        table.add_column(name, no_wrap=True, justify="right")
    for row in rows:
        tested = number(row["adjusted"]) if row["adjusted"] is not None else "not tested"
        interval = f"{number(row['lower'])} … {number(row['upper'])}"
        status = Text(row["status"], COLOURS[row["status"]])
        numbers = number(row["estimate"]), interval, tested
        table.add_row(status, row["block"], row["claim"], points(row["pairing"]), *numbers)
    return table


def _plain(table: pl.DataFrame | None) -> list[dict[str, Any]]:
    rows = [] if table is None else table.to_dicts()
    return [{k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()} for row in rows]
