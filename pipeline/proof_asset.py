"""The asset ``proofs``: one run held against every proof, line by line."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import dagster as dg
import polars as pl

from analysis.pages.proof_plate import proof_bounds
from analysis.pages.report import PROOF_BOUNDS
from analysis.pages.svg import drawing
from analysis.proving.proof import Proof
from analysis.proving.prove import Outcome, evaluate_all
from analysis.tables import TableStore
from pipeline import checks, pages
from pipeline.kept import write_drawing
from pipeline.results import PROOFS_READ, content

REFERENCE = "last"  # the point that stands for the minimiser
FINDING_SCHEMA = pl.Schema(
    {
        **dict.fromkeys(("proof", "status", "reason", "breaks"), pl.String),
        **dict.fromkeys(("observed", "bound"), pl.Float64),
        **dict.fromkeys(("fingerprint", "digest"), pl.String),
    }
)


def compute(store: TableStore, proofs: Mapping[str, Proof]) -> tuple[dict[str, Outcome], pl.DataFrame]:
    """Hold the run against the proofs; lines go to the table ``proofs``, what they amount to to ``proof_findings``."""
    tables = store.tables()
    outcomes = evaluate_all(proofs.values(), tables, REFERENCE)
    lines = pl.concat([outcome.table for outcome in outcomes.values()])
    of = content(store, *PROOFS_READ)
    store.write("proofs", lines.with_columns(digest=pl.lit(of)))
    rows = [
        {**asdict(outcome.finding), "fingerprint": proofs[name].fingerprint, "digest": of}
        for name, outcome in outcomes.items()
    ]
    store.write("proof_findings", pl.DataFrame(rows, schema=FINDING_SCHEMA))
    return outcomes, lines


def check_specs(proofs: Iterable[Proof]) -> list[dg.AssetCheckSpec]:
    """One check per proof."""
    texts = (
        (p.name, " ".join((f"{p.title}.", *(f"Assumes: {part}." for part in p.assumes), p.caveat))) for p in proofs
    )
    return [checks.spec("proofs", name, text.strip()) for name, text in texts]


def check_results(outcomes: Mapping[str, Outcome]) -> list[dg.AssetCheckResult]:
    """A proof passes where every line of it holds; a line that breaks is a finding, not an error."""
    return [
        dg.AssetCheckResult(
            check_name=name,
            passed=outcome.finding.status == "HOLDS",
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{outcome.finding.status}: {outcome.finding.reason}",
        )
        for name, outcome in outcomes.items()
    ]


def page(store: TableStore, proofs: Mapping[str, Proof], outcomes: Mapping[str, Outcome], lines: pl.DataFrame) -> Any:
    """The page: bounds beside what was observed, and each proof line by line. The figure is kept for the report."""
    drawn = drawing(proof_bounds(store.run_id, lines))
    write_drawing(store, PROOF_BOUNDS, drawn)
    return {
        "bounds": pages.image("proofs", drawn),
        **{name: dg.MetadataValue.md(markdown(proofs[name], outcome)) for name, outcome in outcomes.items()},
        "dagster/row_count": len(lines),
        "path": dg.MetadataValue.path(str(store.path("proofs"))),
    }


def markdown(proof: Proof, outcome: Outcome) -> str:
    """One proof as a table, a row per line, and what it amounts to."""
    head = "| | line | uses | left | | right | status |\n|---|---|---|---|---|---|---|"
    rows = [
        "| "
        + " | ".join(
            (
                str(row["number"]) if row["part"] == "line" else "→",
                _cell(row["line"]),
                _cell(row["uses"]),
                _number(row["left"]),
                "≤" if row["relation"] == "<=" else "=",
                _number(row["right"]),
                f"**{row['status']}** ← breaks the proof" if row["breaks"] else row["status"],
            )
        )
        + " |"
        for row in outcome.table.iter_rows(named=True)
    ]
    said = f"**{outcome.finding.status}**: {outcome.finding.reason}"
    return "\n\n".join([f"**{proof.title}**", said, "\n".join([head, *rows])])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
