"""What the terminal shows of a run. Works without the pipeline's packages as long as no verdict was computed."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from tracer.errors import FormatError
from tracer.store import Trace, home, runs
from tracer.store.places import require_root

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
        "branch_of": dict(manifest.branch_of) if manifest.branch_of else None,
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
    except (FormatError, OSError) as error:
        return {"run_id": path.name, "path": str(path), "status": "damaged", "error": str(error)}


def verdicts_of(tables_root: Path, run_id: str) -> list[dict[str, Any]] | None:
    """Rows of a run's verdict table, undefined numbers as null; None if it was not computed.

    Raises:
        UsageError: the tables' root is no directory, or cannot be reached.
    """
    require_root(tables_root, "LEMMATA_TABLES", absent=True)
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


def letters() -> dict[str, str]:
    """Letter of the family of every metric there is."""
    from analysis.registry import metrics

    return {name: metric.family for name, metric in metrics().items()}


def findings_of(tables_root: Path, run_id: str) -> list[dict[str, Any]]:
    """What each proof amounts to on a run; nothing where it was not computed."""
    path = tables_root / run_id / "proof_findings.parquet"
    if not path.is_file():
        return []
    from analysis.tables import TableStore

    rows = TableStore(tables_root, run_id).scan("proof_findings").collect().drop("digest").to_dicts()
    return [{k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()} for row in rows]


def print_run(
    console: Console,
    run: Row,
    verdicts: list[dict[str, Any]] | None,
    findings: Iterable[Row] = (),
    every: bool = False,
) -> None:
    """One run, then its verdicts and proofs, or the command that computes them."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in _lines(run):
        table.add_row(Text(name, "bold"), Text(value))
    console.print(table)
    console.print()
    if verdicts is None:
        console.print(f"No verdicts yet. Compute them: lemmata materialize {run['run_id']}", highlight=False)
    else:
        for part in verdict_tables(verdicts, letters(), every):
            console.print(part)
        found = list(findings)
        for title, lines in (("Proofs", proof_lines(found)), ("Why", reasons(verdicts, every))):
            if title == "Why" or found:
                console.print(Text(title, "bold"))
            for line in lines:
                console.print(line)
            console.print()


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
    if run["branch_of"]:
        yield "branch of", f"{run['branch_of'].get('run_id')}, step {run['branch_of'].get('step')}"
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


def verdict_tables(verdicts: Iterable[Row], letters: Mapping[str, str], every: bool) -> Iterable[RenderableType]:
    """Verdicts by family, the worst first; why a claim fails stands below it.

    Args:
        verdicts: of a run.
        letters: letter of the family by metric.
        every: also list what is not applicable, each reference point, and why claims hold.
    """
    from analysis.pages.grouped import families

    for family in families(letters, verdicts):
        yield Text(family.title, "bold")
        shown = family.groups if every else family.judged
        if shown:
            yield _family_table(shown, every)
        if family.not_applicable and not every:
            yield Text(f"{len(family.not_applicable)} not applicable", "dim")
        if family.descriptive:
            yield Text(f"described, not judged: {', '.join(family.descriptive)}", "dim")
        yield ""


def _family_table(groups: Iterable[Any], every: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("verdict", "metric", "claim"):
        table.add_column(name, overflow="fold")
    table.add_column("points", no_wrap=True)
    table.add_column("estimate", no_wrap=True, justify="right")
    table.add_column("interval", no_wrap=True)
    for group in groups:
        style = COLOURS[group.status]
        table.add_row(Text(group.label, style), group.metric, group.claim, group.points, *_estimate(group.row))
        if every and len(group.rows) > 1:
            for row in group.rows:
                name = row["pairing"].partition(":")[2]
                table.add_row(Text(f"  {row['status']}", COLOURS[row["status"]]), "", "", f"  {name}", *_estimate(row))
    return table


def _estimate(row: Row) -> tuple[str, str]:
    low, high = number(row["lower"]), number(row["upper"])
    return number(row["estimate"]), f"{low} … {high}" if low or high else ""


def reasons(verdicts: Iterable[Row], every: bool) -> Iterable[Text]:
    """Why claims fail; with ``every`` also why others are not decided or not applicable. The verdicts' own words."""
    from analysis.pages.grouped import groups

    wanted = ("FAILS", "INCONCLUSIVE", "NOT APPLICABLE") if every else ("FAILS",)
    for group in groups(row for row in judged(verdicts) if row["rule"] != "none"):
        if group.status in wanted:
            said = group.agreement or group.row["reason"]
            where = f"{group.metric}, {group.claim} ({group.points})"
            yield Text.assemble(Text(group.label, COLOURS[group.status]), f"  {where}: {said}")


def proof_lines(findings: Iterable[Row]) -> Iterable[Text]:
    """A line per proof: whether it holds on the run, and the line that breaks it."""
    order = list(COLOURS)
    for finding in sorted(findings, key=lambda f: (f["status"] == "NOT APPLICABLE", order.index(f["status"]))):
        yield Text.assemble(coloured(finding), f"  {finding['proof']}: {finding['reason']}")


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
