"""One run as one page: verdicts first, then the paper's figures, proofs, every metric, the trace's checks, the run.

The page is a single HTML file that fetches nothing: style, script and drawings stand in it. Everything that comes from
a run or a metric file (names, formulas, configuration) is escaped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import polars as pl

from analysis.checks import CheckResult
from analysis.figures import drawable, figure, to_svg
from analysis.gallery import PLATES, worth_drawing
from analysis.grouped import STATUSES, Family, families, is_control, points
from analysis.metric import Claim, Metric
from analysis.page import environment
from analysis.plates import Measured
from analysis.proof import Proof
from analysis.proof_plate import proof_bounds
from analysis.svg import glyph_sheet
from analysis.tables import MODEL, Facts

Measurements = Mapping[str, tuple[Metric, pl.DataFrame, pl.DataFrame]]
Proofs = Mapping[str, tuple[Proof, Mapping[str, Any], pl.DataFrame]]
Drawing = tuple[str, dict[str, str]]  # an SVG, and the letters it shares with others
_BLOCKS_MOST = 40
_SUMMARY = ("defined", "undefined", "missing", "mean", "median", "smallest", "largest", "last")


def report(
    facts: Facts,
    measurements: Measurements,
    checks: Sequence[CheckResult],
    config: Mapping[str, Any] | None = None,
    broken: Mapping[str, str] | None = None,
    *,
    steps: pl.DataFrame | None = None,
    proofs: Proofs | None = None,
    drawings: Mapping[str, Drawing] | None = None,
    profile: pl.DataFrame | None = None,
) -> str:
    """The page of one run as HTML text.

    Args:
        facts: of the run.
        measurements: by name the metric, its table and its verdicts.
        checks: of the trace.
        config: what else the run's owner recorded about it, shown as it is.
        broken: metric files that did not load, with their errors.
        steps: the run's step records; without them some figures show less.
        proofs: by name the proof, what it amounts to and its lines.
        profile: losses along steps, where they were replayed.
        drawings: figures by metric, as :func:`drawing` made them; the others are drawn here.
    """
    metrics = {name: metric for name, (metric, _, _) in measurements.items()}
    rows = [row for _, _, verdicts in measurements.values() for row in verdicts.iter_rows(named=True)]
    found = families({name: metric.family for name, metric in metrics.items()}, rows)
    held = _proofs(proofs or {})
    glyphs: dict[str, str] = {}
    drawn = {name: svg for name, (svg, _) in (drawings or {}).items()}
    for _, shared in (drawings or {}).values():
        glyphs |= shared
    page = {
        "facts": _facts(facts),
        "run_id": facts.run_id,
        "families": found,
        "counts": {status: sum(family.counts[status] for family in found) for status in STATUSES},
        "statuses": STATUSES,
        "plates": _plates(facts, measurements, steps, profile, proofs or {}, glyphs),
        "proofs": held,
        "sections": {family.slug: _sections(family, measurements, drawn, glyphs) for family in found},
        "metrics": metrics,
        "checks": checks,
        "config": dict(config or {}),
        "broken": dict(broken or {}),
        "is_control": is_control,
        "points": points,
    }
    return environment().get_template("report.html.j2").render(page, glyphs=glyph_sheet(glyphs))


def summary(table: pl.DataFrame) -> pl.DataFrame:
    """Per pairing and block how many values are defined, undefined and missing, and their usual statistics.

    The mean is the plain mean of the defined values; intervals are the verdicts' business.
    """
    value = pl.col("value")
    number = value.filter(value.is_finite())
    return table.group_by("pairing", "block", maintain_order=True).agg(
        defined=number.len(),
        undefined=value.is_not_null().sum() - number.len(),
        missing=value.null_count(),
        mean=number.mean(),
        median=number.median(),
        smallest=number.min(),
        largest=number.max(),
        last=number.last(),
    )


def _plates(
    facts: Facts,
    measurements: Measurements,
    steps: pl.DataFrame | None,
    profile: pl.DataFrame | None,
    proofs: Proofs,
    glyphs: dict[str, str],
) -> dict[str, str]:
    """The paper's figures of the metrics that were measured, and of the proofs, as SVG."""
    found = {name: (table, verdicts) for name, (_, table, verdicts) in measurements.items()}
    lines = pl.concat([lines for _, _, lines in proofs.values()]) if proofs else None
    known = pl.DataFrame(schema={"step": pl.Int64}) if steps is None else steps
    data = Measured(facts.run_id, found, known, profile)
    drawn = {name: draw(data) for name, draw in PLATES.items() if worth_drawing(name, data)}
    if proofs:
        drawn["proof_bounds"] = proof_bounds(facts.run_id, lines)
    return {name: to_svg(plate, glyphs) for name, plate in drawn.items()}


def _proofs(proofs: Proofs) -> list[dict[str, Any]]:
    """Proofs in the order of what they amount to."""
    found = [
        {"proof": proof, "finding": finding, "lines": lines.to_dicts(), "window": lines["window"][0]}
        for proof, finding, lines in proofs.values()
    ]
    return sorted(found, key=lambda each: STATUSES.index(each["finding"]["status"]))


def drawing(metric: Metric, table: pl.DataFrame, verdicts: pl.DataFrame) -> Drawing:
    """The figure of a metric as the page shows it; empty where nothing was measured."""
    glyphs: dict[str, str] = {}
    if not drawable(table):
        return "", glyphs
    return to_svg(figure(metric, table, verdicts, titled=False), glyphs), glyphs


def _sections(
    family: Family, measurements: Measurements, drawn: Mapping[str, str], glyphs: dict[str, str]
) -> list[dict[str, Any]]:
    names = dict.fromkeys([*(group.metric for group in family.groups), *family.descriptive])
    in_order = [name for name in measurements if name in names]
    found = []
    for name in in_order:
        if (svg := drawn.get(name)) is None:
            svg, shared = drawing(*measurements[name])
            glyphs |= shared
        found.append(_section(*measurements[name], svg))
    return found


def _section(metric: Metric, table: pl.DataFrame, verdicts: pl.DataFrame, svg: str) -> dict[str, Any]:
    rows = summary(table)
    blocks = rows.filter(pl.col("block").cast(pl.String) != MODEL)
    judged = verdicts.filter(pl.col("rule") != "none").to_dicts()
    statuses = [row["status"] for row in judged if row["pairing"] != "unpaired" and not is_control(row)]
    claims = [(claim, [row for row in judged if row["claim"] == claim.name]) for claim in metric.claims]
    return {
        "metric": metric,
        "units": str(metric.units),
        "status": min(statuses, key=STATUSES.index, default="described"),
        # marked safe in the template: drawn here, its texts are outlines, so nothing of a user gets in as markup
        "svg": svg,
        "claims": [_claim(claim, of) for claim, of in claims if of],
        "columns": _SUMMARY,
        "summary": rows.filter(pl.col("block").cast(pl.String) == MODEL).rows(named=True),
        "blocks": blocks.head(_BLOCKS_MOST).rows(named=True),
        "blocks_left_out": max(0, len(blocks) - _BLOCKS_MOST),
    }


def _claim(claim: Claim, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A claim with its verdicts; words that all of them share are said once."""
    reasons = {row["reason"] for row in rows}
    return {
        "claim": claim,
        "rows": rows,
        "says": rows[0]["says"],
        "caveats": list(dict.fromkeys(row["caveat"] for row in rows if row["caveat"])),
        "biases": list(dict.fromkeys(row["biases"] for row in rows if row["biases"])),
        "one_reason": rows[0]["reason"] if len(reasons) == 1 and len(rows) > 1 else "",
    }


def _facts(facts: Facts) -> dict[str, Any]:
    blocks = facts.blocks
    shown = ", ".join(blocks[:_BLOCKS_MOST]) + (
        f" and {len(blocks) - _BLOCKS_MOST} more" * (len(blocks) > _BLOCKS_MOST)
    )
    lists = {"references": ", ".join(facts.references), "optimizer_flags": ", ".join(facts.optimizer_flags) or "none"}
    return {**asdict(facts), **lists, "parameters": f"{facts.parameters:,}", "blocks": f"{len(blocks)}: {shown}"}
