"""A run held against a proof: which line holds, with how much slack, and which one breaks first."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import polars as pl

from analysis.columns import COLUMNS, REFINING
from analysis.judging.verdict import FAILS, HOLDS, INCONCLUSIVE, NOT_APPLICABLE
from analysis.proving.proof import Line, Need, Proof
from analysis.proving.proof_lines import SIGN, judge_line, nothing
from analysis.proving.proof_rows import PREFIXES, Rows, proof_rows
from analysis.tables import REFERENCE, Tables

LINE_SCHEMA = pl.Schema(
    {
        **dict.fromkeys(("run_id", "proof", "reference", "window", "line"), pl.String),
        "number": pl.Int64,
        **dict.fromkeys(("part", "uses", "over", "relation", "status", "reason"), pl.String),
        **dict.fromkeys(("left", "right", "slack", "relative_slack", "tolerance", "lower", "upper"), pl.Float64),
        **dict.fromkeys(("steps", "missing", "undefined", "violations"), pl.Int64),
        "worst": pl.Float64,
        "worst_step": pl.Int64,
        "breaks": pl.Boolean,
        **dict.fromkeys(("says", "fingerprint"), pl.String),
    }
)
"""``left`` and ``right`` are means of the steps where the line is about each step or a mean, totals otherwise;
``slack`` is right − left, ``relative_slack`` the same over the larger of the two. ``worst`` is the largest violation in
tolerances (beyond 1 it counts), ``lower`` and ``upper`` the interval of left − right. ``breaks`` marks the first line
that fails."""


@dataclass(frozen=True)
class ProofFinding:
    """What comes out for the run as a whole.

    Args:
        status: HOLDS where every line does, FAILS where one breaks it, INCONCLUSIVE where a line could not be decided
            or tested, NOT APPLICABLE where the proof does not speak of this run.
        reason: in words.
        breaks: name of the first line that fails; None if none does.
        observed, bound: of the first conclusion that could be computed; NaN where none could.
    """

    proof: str
    status: str
    reason: str
    breaks: str | None
    observed: float
    bound: float


@dataclass(frozen=True, eq=False)
class Outcome:
    """A table with a row per line, columns as in :data:`LINE_SCHEMA`, and what it amounts to."""

    table: pl.DataFrame
    finding: ProofFinding


def evaluate(proof: Proof, tables: Tables, reference: str = "last") -> Outcome:
    """Hold one run against a proof.

    Args:
        reference: which reference point stands for the minimiser, a name of ``tables.facts.references``.
    """
    return _evaluated(proof, tables, reference, proof_rows(tables, reference))


def evaluate_all(proofs: Iterable[Proof], tables: Tables, reference: str = "last") -> dict[str, Outcome]:
    """Hold one run against several proofs; by name, in their order. The tables are read once."""
    rows = proof_rows(tables, reference)
    return {proof.name: _evaluated(proof, tables, reference, rows) for proof in proofs}


def _evaluated(proof: Proof, tables: Tables, reference: str, rows: Rows) -> Outcome:
    frame = _with_constants(proof, rows.frame)
    unmet = _unmet(proof.needs, frame, tables, reference)
    lines = [(line, "line") for line in proof.lines] + [(line, "bound") for line in proof.bounds]
    found: list[dict[str, Any]] = []
    for number, (line, part) in enumerate(lines, 1):
        why = unmet or _unmet(line.needs, frame, tables, reference) or _absent(line, frame)
        found.append(
            {
                "run_id": tables.facts.run_id,
                "proof": proof.name,
                "reference": reference,
                "window": rows.window,
                "line": line.name,
                "number": number,
                "part": part,
                "uses": line.uses,
                "over": line.over,
                "relation": line.relation,
                "says": line.says,
                "fingerprint": proof.fingerprint,
                **_judged(line, frame, why, part == "bound"),
            }
        )
    first = next((row for row in found if row["part"] == "line" and row["status"] == FAILS), None)
    for row in found:
        row["breaks"] = row is first
    table = pl.DataFrame(found, schema=LINE_SCHEMA)
    return Outcome(table, _finding(proof, table, unmet))


def _with_constants(proof: Proof, frame: pl.DataFrame) -> pl.DataFrame:
    for constant in proof.constants:
        of = frame.head(len(frame) // 2) if constant.first_half else frame
        value = of.select(constant.value.cast(pl.Float64)).item() if len(of) else None
        frame = frame.with_columns(pl.lit(value, pl.Float64).alias(constant.name))
    return frame


def _unmet(needs: tuple[Need, ...], frame: pl.DataFrame, tables: Tables, reference: str) -> str:
    """Why the run is not one that the proof speaks of; empty if it is."""
    if frame.is_empty():
        return "the run has no steps"
    name = tables.facts.optimizer_class.rpartition(".")[2] or "an unknown optimizer"
    for need in needs:
        if need.optimizers and name not in need.optimizers:
            return f"stated for {need.says}; this run used {name}"
        if need.reference and need.reference != reference:
            return f"stated for {need.says}; this table is about {REFERENCE}{reference}"
        if need.holds is not None and frame.select(need.holds).item() is not True:
            return f"stated for {need.says}; this run is not of that kind, or does not say so"
    return ""


def _absent(line: Line, frame: pl.DataFrame) -> str:
    gone = sorted({name for part in line.parts() for name in _gone(part, frame)})
    return "; ".join(f"needs {name}: {_why_absent(name)}" for name in gone)


def _gone(part: pl.Expr, frame: pl.DataFrame) -> list[str]:
    """Columns it reads that are missing at every step."""
    needed = set(part.meta.root_names()) - REFINING
    return [name for name in needed if frame[name].null_count() == len(frame)]


def _why_absent(name: str) -> str:
    prefix, _, column = name.rpartition(".")
    if prefix == "reference" and column in ("loss_y", "gy_d", "gy_gy", "dg_d", "dg_dg", "gx_gy"):
        return "the minibatches were not evaluated at the reference point"
    known = COLUMNS.get(column if prefix in PREFIXES else name)
    return f"{known.meaning}; {known.absent}" if known is not None else "it cannot be computed for this run"


def _judged(line: Line, frame: pl.DataFrame, why_not: str, is_bound: bool) -> dict[str, Any]:
    found = nothing(NOT_APPLICABLE, "") if frame.is_empty() else judge_line(line, frame)
    if why_not:
        found |= {"status": NOT_APPLICABLE, "reason": why_not}
        # a bound is worth seeing even where there is nothing to compare it with
        shown = is_bound and not _gone(line.right, frame)
        kept = {"right": found["right"]} if shown else {}
        found |= dict.fromkeys(("left", "right", "slack", "relative_slack", "worst")) | kept
    elif found["undefined"] and found["status"] == HOLDS:
        reason = f"{found['reason']}; but {found['undefined']} steps are undefined"
        found |= {"status": INCONCLUSIVE, "reason": reason}
    return {name: _null_for_nan(value) for name, value in found.items()}


def _null_for_nan(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


# --- the proof as a whole -------------------------------------------------------------------------------------------


def _finding(proof: Proof, table: pl.DataFrame, unmet: str) -> ProofFinding:
    lines, bounds = (table.filter(pl.col("part") == part) for part in ("line", "bound"))
    known = bounds.filter(pl.col("right").is_not_null()).head(1)
    observed, bound = (known[name].item() if len(known) else None for name in ("left", "right"))
    numbers = {"observed": math.nan if observed is None else observed, "bound": math.nan if bound is None else bound}
    of = {status: lines.filter(pl.col("status") == status)["line"].to_list() for status in _STATUSES}
    if unmet:
        return ProofFinding(proof.name, NOT_APPLICABLE, unmet, None, **numbers)
    if of[FAILS]:
        first = lines.filter("breaks").row(0, named=True)
        text = (
            f"line {first['number']} ({first['line']}; uses {first['uses']}) breaks the proof: {first['reason']}. "
            f"{len(of[HOLDS])} of {len(lines)} lines hold"
        )
        return ProofFinding(proof.name, FAILS, text, first["line"], **numbers)
    if len(of[NOT_APPLICABLE]) == len(lines):
        return ProofFinding(proof.name, NOT_APPLICABLE, str(lines["reason"][0]), None, **numbers)
    if len(of[HOLDS]) == len(lines):
        return ProofFinding(proof.name, HOLDS, f"all {len(lines)} lines hold", None, **numbers)
    parts = [f"{len(of[HOLDS])} of {len(lines)} lines hold, none fails"]
    if of[INCONCLUSIVE]:
        parts.append("not decided: " + ", ".join(of[INCONCLUSIVE]))
    if of[NOT_APPLICABLE]:
        parts.append("not tested: " + ", ".join(of[NOT_APPLICABLE]))
    return ProofFinding(proof.name, INCONCLUSIVE, "; ".join(parts), None, **numbers)


_STATUSES = (HOLDS, FAILS, INCONCLUSIVE, NOT_APPLICABLE)


def text(proof: Proof, outcome: Outcome) -> str:
    """The outcome in plain text: a row per line, the bounds, and what it amounts to."""
    head = ("", "line", "uses", "left", "", "right", "slack", "status")
    rows = [
        (
            str(row["number"]) if row["part"] == "line" else "→",
            row["line"],
            row["uses"],
            *(_short(row["left"]), SIGN[row["relation"]], _short(row["right"]), _percent(row["relative_slack"])),
            row["status"] + (" ← breaks the proof" if row["breaks"] else ""),
        )
        for row in outcome.table.iter_rows(named=True)
    ]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    body = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]
    window = outcome.table["window"][0] if len(outcome.table) else ""
    finding = outcome.finding
    return "\n".join([f"{proof.title} ({window})", *body, f"{finding.status}: {finding.reason}."]) + "\n"


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.3g} %"
