"""What the terminal shows of a run. Works without the pipeline's packages as long as no verdict was computed."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tracer.errors import FormatError
from tracer.store import Trace, home, runs

COLOURS = {"HOLDS": "green", "FAILS": "red", "INCONCLUSIVE": "yellow", "NOT APPLICABLE": "dim"}
Row = Mapping[str, Any]


def describe(path: Path) -> dict[str, Any]:
    """Facts of one run as plain JSON values; no vector is read.

    Raises:
        FormatError: the directory holds no sound run.
    """
    trace = Trace(path)
    manifest = trace.manifest
    return {
        "run_id": path.name,  # what commands call it; a renamed copy keeps its manifest
        "recorded_as": trace.run_id,
        "path": str(path),
        "created": manifest.created,
        "status": trace.status,
        "ended": dict(manifest.ended) if manifest.ended else None,
        "attempts": len(manifest.attempts),
        "steps": trace.step_count,
        "first_step": trace.first_step,
        "last_step": trace.last_step,
        "parameters": trace.parameters,
        "frozen_parameters": manifest.frozen_parameters,
        "blocks": [{"name": b.name, "shape": list(b.shape), "dtype": b.dtype, "size": b.size} for b in trace.blocks],
        "streams": list(trace.streams),
        "optimizer": dict(manifest.optimizer),
        "plan": dict(manifest.plan),
        "config": dict(manifest.config),
        "versions": dict(manifest.versions),
        "bytes": trace.bytes,
        "digest": trace.digest,
    }


def describe_all() -> list[dict[str, Any]]:
    """Facts of every run of this home; one that cannot be read has the status ``damaged`` and the reason."""
    return [_describe_safely(path) for path in runs(home.runs_root())]


def _describe_safely(path: Path) -> dict[str, Any]:
    try:
        return describe(path)
    except FormatError as error:
        return {"run_id": path.name, "path": str(path), "status": "damaged", "error": str(error)}


def verdicts_of(tables_root: Path, run_id: str) -> list[dict[str, Any]] | None:
    """Rows of a run's verdict table, undefined numbers as null; None if it was not computed."""
    path = tables_root / run_id / "verdicts.parquet"
    if not path.is_file():
        return None
    from analysis.tables import TableStore  # imports polars; on a training node there is no verdict to read

    rows = TableStore(tables_root, run_id).scan("verdicts").collect().to_dicts()
    return [{k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()} for row in rows]


def runs_table(found: Iterable[Row]) -> Table:
    """The runs, a line each."""
    table = Table(box=None, pad_edge=False)
    table.add_column("run", no_wrap=True)
    for name in ("status", "steps", "parameters", "optimizer", "size", "recorded"):
        table.add_column(name, no_wrap=True, justify="right" if name in ("steps", "parameters", "size") else "left")
    for run in found:
        if run["status"] == "damaged":
            table.add_row(run["run_id"], Text("damaged", "red"))
            continue
        counts = f"{run['steps']:,}", f"{run['parameters']:,}"
        day = run["created"][:10]
        table.add_row(run["run_id"], run["status"], *counts, optimizer_name(run), size(run["bytes"]), day)
    return table


def print_run(console: Console, run: Row, verdicts: list[dict[str, Any]] | None) -> None:
    """One run, then its verdicts or the command that computes them."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in _lines(run):
        table.add_row(Text(name, "bold"), Text(value))
    console.print(table)
    console.print()
    if verdicts is None:
        console.print(f"No verdicts yet. Compute them: lemmata materialize {run['run_id']}", highlight=False)
    else:
        console.print(verdict_table(verdicts))
        console.print()
        for reason in reasons(verdicts):
            console.print(reason)


def _lines(run: Row) -> Iterable[tuple[str, str]]:
    yield "run", run["run_id"]
    yield "directory", run["path"]
    yield "recorded", run["created"]
    yield "status", _status(run)
    yield "steps", f"{run['steps']:,} ({run['first_step']} to {run['last_step']})" if run["steps"] else "none"
    yield "size", size(run["bytes"])
    yield "parameters", f"{run['parameters']:,} recorded, {run['frozen_parameters']:,} frozen"
    blocks = run["blocks"]
    names = ", ".join(f"{b['name']} {tuple(b['shape'])}" for b in blocks[:8])
    yield "blocks", f"{len(blocks)}: {names}{', …' if len(blocks) > 8 else ''}"
    yield "optimizer", optimizer_name(run)
    yield "plan", ", ".join(f"{k}: {v if isinstance(v, str) else ', '.join(v)}" for k, v in run["plan"].items())
    if run["config"]:
        yield "config", ", ".join(f"{k}={v}" for k, v in run["config"].items())
    yield "versions", ", ".join(f"{k} {v}" for k, v in run["versions"].items())


def _status(run: Row) -> str:
    if run["ended"]:
        error = run["ended"].get("error")
        return f"closed: {run['ended'].get('reason', '')}" + (f" ({error})" if error else "")
    last = run["last_step"]
    acknowledged = "no step acknowledged" if last is None else f"last acknowledged step {last}"
    if run["status"] == "recording":
        return f"recording: {acknowledged} so far"
    return f"interrupted: the recording process ended before it closed the run; {acknowledged}"


def judged(verdicts: Iterable[Row]) -> list[Row]:
    """The rows of pairs on one minibatch: unpaired values stand beside them in the table and are never judged."""
    return [verdict for verdict in verdicts if verdict["pairing"] != "unpaired"]


def verdict_table(verdicts: Iterable[Row]) -> Table:
    """Verdicts, a line each: what was claimed, what came out, and the numbers."""
    table = Table(box=None, pad_edge=False)
    for name in ("metric", "claim", "verdict", "estimate", "interval", "pairs"):
        table.add_column(name, no_wrap=True, justify="right" if name in ("estimate", "pairs") else "left")
    for v in judged(verdicts):
        low, high = number(v["lower"]), number(v["upper"])
        interval = f"{low} … {high}" if low or high else ""
        table.add_row(v["metric"], v["claim"], coloured(v), number(v["estimate"]), interval, f"{v['pairs']:,}")
    return table


def reasons(verdicts: Iterable[Row]) -> Iterable[Text]:
    """Why each claim that does not hold does not, worst first; the wording is that of the verdict."""
    for status in ("FAILS", "INCONCLUSIVE", "NOT APPLICABLE"):
        for v in judged(verdicts):
            if v["status"] == status:
                yield Text.assemble(coloured(v), f"  {v['metric']}, {v['claim']}: {v['reason']}")


def coloured(verdict: Row) -> Text:
    """The status in its colour."""
    return Text(verdict["status"], COLOURS[verdict["status"]])


def optimizer_name(run: Row) -> str:
    """Class of the optimizer without its module."""
    return str(run["optimizer"].get("class", "?")).rsplit(".", 1)[-1]


def number(value: float | None) -> str:
    """Three digits; empty where there is none."""
    return "" if value is None or math.isnan(value) else f"{value:.3g}"


def size(count: float) -> str:
    """Bytes for a reader."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
