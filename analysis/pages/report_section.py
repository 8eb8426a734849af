"""The part of a run's page that is about one metric: its claims with their verdicts, its figure, its numbers.

It follows from the metric's own tables alone, so that a page with a new metric need not write the others' parts again.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from analysis.metric import Claim, Metric
from analysis.pages.details import (
    UNFOLDED_MOST,
    Details,
    tensors_counted,
    tensors_judged,
    tensors_shown,
    windows_shown,
)
from analysis.pages.figures import drawable, figure
from analysis.pages.grouped import STATUSES, is_control, points
from analysis.pages.page import environment
from analysis.pages.svg import Drawing, drawing
from analysis.tables import MODEL

Section = tuple[str, dict[str, str]]
"""HTML, and the letters that its figure shares with others."""
_SUMMARY = ("defined", "undefined", "missing", "mean", "median", "smallest", "largest", "last")
_TEMPLATE = "report_section.html.j2"


def section(
    metric: Metric,
    table: pl.DataFrame,
    verdicts: pl.DataFrame,
    drawn: Drawing | None = None,
    details: Details | None = None,
) -> Section:
    """What the page says of a metric.

    Args:
        metric: the record.
        table, verdicts: as :func:`analysis.measure.measure` gives them.
        drawn: its figure as :func:`metric_drawing` made it; drawn here unless given.
        details: its windows and tensors.
    """
    details = details or Details()
    svg, glyphs = drawn or metric_drawing(metric, table, verdicts, details.windows)
    judged = verdicts.filter(pl.col("rule") != "none").to_dicts()
    paired = [row for row in judged if row["pairing"] != "unpaired"]
    counted = [row for row in paired if not is_control(row)] or paired  # as in the verdicts above, see grouped
    claims = [(claim, [row for row in judged if row["claim"] == claim.name]) for claim in metric.claims]
    said = {
        "metric": metric,
        "units": str(metric.units),
        "status": min((row["status"] for row in counted), key=STATUSES.index, default="described"),
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
    words = {"statuses": STATUSES, "is_control": is_control, "points": points}
    return environment().get_template(_TEMPLATE).render(section=said, **words), glyphs


def metric_drawing(
    metric: Metric, table: pl.DataFrame, verdicts: pl.DataFrame, windows: pl.DataFrame | None = None
) -> Drawing:
    """The figure of a metric as the page shows it; empty where nothing was measured."""
    return drawing(figure(metric, table, verdicts, windows, titled=False)) if drawable(table) else ("", {})


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
