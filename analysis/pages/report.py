"""One run as one page: verdicts first, then the paper's figures, proofs, every metric, the trace's checks, the run.

The page is a single HTML file that fetches nothing: style, script and drawings stand in it. Everything that comes from
a run or a metric file (names, formulas, configuration) is escaped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import polars as pl

from analysis.judging.battery import CONTROLS
from analysis.metric import Metric
from analysis.pages.details import Details, battery_shown
from analysis.pages.gallery import PLATES, worth_drawing
from analysis.pages.grouped import STATUSES, Family, families, is_control, points
from analysis.pages.measured import Measured
from analysis.pages.page import environment
from analysis.pages.proof_plate import proof_bounds
from analysis.pages.report_section import Section, section
from analysis.pages.svg import Drawing, drawing, glyph_sheet
from analysis.proving.proof import Proof
from analysis.soundness.checks import CheckResult
from analysis.tables import Facts

Measurements = Mapping[str, tuple[Metric, pl.DataFrame, pl.DataFrame]]
Proofs = Mapping[str, tuple[Proof, Mapping[str, Any], pl.DataFrame]]
_BLOCKS_MOST = 40


def report(
    facts: Facts,
    measurements: Measurements,
    checks: Sequence[CheckResult],
    config: Mapping[str, Any] | None = None,
    broken: Mapping[str, str] | None = None,
    *,
    steps: pl.DataFrame | None = None,
    proofs: Proofs | None = None,
    figures: Mapping[str, Drawing] | None = None,
    sections: Mapping[str, Section] | None = None,
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
        figures: the paper's figures, as :func:`plates` made them; drawn here unless given.
        sections: parts of the page by metric, as :func:`analysis.pages.report_section.section` made them; the others
            are made here. Of a metric that is there the table is not looked at.
        details: windows and verdicts on parameter tensors by metric; a metric that is not there shows neither.
    """
    metrics = {name: metric for name, (metric, _, _) in measurements.items()}
    rows = [row for _, _, verdicts in measurements.values() for row in verdicts.iter_rows(named=True)]
    found = families({name: metric.family for name, metric in metrics.items()}, rows)
    held = _proofs(proofs or {})
    drawn = plates(facts, measurements, steps, proofs) if figures is None else figures
    parts = {
        name: (sections or {}).get(name) or section(*of, details=(details or {}).get(name))
        for name, of in measurements.items()
    }
    glyphs = {letter: shape for _, shared in (*drawn.values(), *parts.values()) for letter, shape in shared.items()}
    page = {
        "facts": _facts(facts),
        "run_id": facts.run_id,
        "families": found,
        "counts": {status: sum(family.counts[status] for family in found) for status in STATUSES},
        "statuses": STATUSES,
        "plates": {name: drawn[name][0] for name in PLATE_NAMES if name in drawn},
        "proofs": held,
        "sections": {family.slug: [parts[name][0] for name in _named(family, measurements)] for family in found},
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


def _named(family: Family, measurements: Measurements) -> list[str]:
    names = {*(group.metric for group in family.groups), *family.descriptive}
    return [name for name in measurements if name in names]


def _facts(facts: Facts) -> dict[str, Any]:
    blocks = facts.blocks
    shown = ", ".join(blocks[:_BLOCKS_MOST]) + (
        f" and {len(blocks) - _BLOCKS_MOST} more" * (len(blocks) > _BLOCKS_MOST)
    )
    lists = {"references": ", ".join(facts.references), "optimizer_flags": ", ".join(facts.optimizer_flags) or "none"}
    return {**asdict(facts), **lists, "parameters": f"{facts.parameters:,}", "blocks": f"{len(blocks)}: {shown}"}
