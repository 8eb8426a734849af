"""One run as one page: verdicts first, then the paper's figures, proofs, every metric, the trace's checks, the run.

The page is a single HTML file that fetches nothing: style, script and drawings stand in it. Everything that comes from
a run or a metric file (names, formulas, configuration) is escaped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import polars as pl

from analysis.battery import CONTROLS
from analysis.checks import CheckResult
from analysis.details import (
    UNFOLDED_MOST,
    Details,
    battery_shown,
    tensors_counted,
    tensors_judged,
    tensors_shown,
    windows_shown,
)
from analysis.figures import drawable, figure
from analysis.gallery import PLATES, worth_drawing
from analysis.grouped import STATUSES, Family, families, is_control, points
from analysis.measured import Measured
from analysis.metric import Claim, Metric
from analysis.page import environment
from analysis.proof import Proof
from analysis.proof_plate import proof_bounds
from analysis.svg import Drawing, drawing, glyph_sheet
from analysis.tables import MODEL, Facts

Measurements = Mapping[str, tuple[Metric, pl.DataFrame, pl.DataFrame]]
Proofs = Mapping[str, tuple[Proof, Mapping[str, Any], pl.DataFrame]]
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
    details: Mapping[str, Details] | None = None,
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
        drawings: figures by metric, as :func:`metric_drawing` made them, and plates, as :func:`plates` made them; the
            others are drawn here.
        details: windows and verdicts on parameter tensors by metric; a metric that is not there shows neither.
    """
    metrics = {name: metric for name, (metric, _, _) in measurements.items()}
    rows = [row for _, _, verdicts in measurements.values() for row in verdicts.iter_rows(named=True)]
    found = families({name: metric.family for name, metric in metrics.items()}, rows)
    held = _proofs(proofs or {})
    drawn = plates(facts, measurements, steps, proofs, drawings)
    beside = {name: (details or {}).get(name, Details()) for name in measurements}
    drawn |= {
        name: metric_drawing(*of, beside[name].windows)
        for name, of in measurements.items()
        if name not in (drawings or {})
    }
    drawn |= drawings or {}
    glyphs = {letter: shape for _, shared in drawn.values() for letter, shape in shared.items()}
    page = {
        "facts": _facts(facts),
        "run_id": facts.run_id,
        "families": found,
        "counts": {status: sum(family.counts[status] for family in found) for status in STATUSES},
        "statuses": STATUSES,
        "plates": {name: drawn[name][0] for name in PLATE_NAMES if name in drawn},
        "proofs": held,
        "sections": {family.slug: _sections(family, measurements, drawn, beside) for family in found},
        "battery": battery_shown([verdicts for _, _, verdicts in measurements.values()]) if measurements else ([], []),
        "controls": CONTROLS,
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


def plates(
    facts: Facts,
    measurements: Measurements,
    steps: pl.DataFrame | None = None,
    proofs: Proofs | None = None,
    drawings: Mapping[str, Drawing] | None = None,
    profile: pl.DataFrame | None = None,
) -> dict[str, Drawing]:
    """The paper's figures of the metrics that were measured, and of the proofs, by name.

    Arguments are those of :func:`report`, and ``profile``, losses along steps where they were replayed. What
    ``drawings`` has is taken from there.
    """
    found = {name: (table, verdicts) for name, (_, table, verdicts) in measurements.items()}
    known = pl.DataFrame(schema={"step": pl.Int64}) if steps is None else steps
    data = Measured(facts.run_id, found, known, profile)
    can = {plate_name(name): draw for name, draw in PLATES.items() if worth_drawing(name, data)}
    drawn = {name: (drawings or {}).get(name) or drawing(draw(data)) for name, draw in can.items()}
    if proofs:
        lines = pl.concat([lines for _, _, lines in proofs.values()])
        drawn[PROOF_BOUNDS] = (drawings or {}).get(PROOF_BOUNDS) or drawing(proof_bounds(facts.run_id, lines))
    return drawn


def plate_name(metric: str) -> str:
    """What the paper's figure of a metric is kept as; the metric's own figure has the metric's name."""
    return f"plate-{metric}"


PROOF_BOUNDS = plate_name("proofs")
PLATE_NAMES = (*map(plate_name, PLATES), PROOF_BOUNDS)


def _proofs(proofs: Proofs) -> list[dict[str, Any]]:
    """Proofs in the order of what they amount to."""
    found = [
        {"proof": proof, "finding": finding, "lines": lines.to_dicts(), "window": lines["window"][0]}
        for proof, finding, lines in proofs.values()
    ]
    return sorted(found, key=lambda each: STATUSES.index(each["finding"]["status"]))


def metric_drawing(
    metric: Metric, table: pl.DataFrame, verdicts: pl.DataFrame, windows: pl.DataFrame | None = None
) -> Drawing:
    """The figure of a metric as the page shows it; empty where nothing was measured."""
    return drawing(figure(metric, table, verdicts, windows, titled=False)) if drawable(table) else ("", {})


def _sections(
    family: Family, measurements: Measurements, drawn: Mapping[str, Drawing], details: Mapping[str, Details]
) -> list[dict[str, Any]]:
    names = dict.fromkeys([*(group.metric for group in family.groups), *family.descriptive])
    return [_section(*measurements[name], drawn[name][0], details[name]) for name in measurements if name in names]


def _section(metric: Metric, table: pl.DataFrame, verdicts: pl.DataFrame, svg: str, details: Details) -> dict[str, Any]:
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
        "summary": summary(table.filter(pl.col("block").cast(pl.String) == MODEL)).rows(named=True),
        "windows": windows_shown(metric, details),
        "tensors": tensors_shown(metric, details),
        "judged": tensors_judged(details),
        "counted": tensors_counted(details.blocks.to_dicts() if details.blocks is not None else ()),
        "fold": details.blocks is not None and len(details.blocks) > UNFOLDED_MOST,
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
