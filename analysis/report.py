"""One run as one page: verdicts first, then every metric with its figure, the checks of the trace, the run's facts.

The page is a single HTML file that fetches nothing: style, script and drawings stand in it. Everything that comes from
a run or a metric file (names, formulas, configuration) is escaped.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined

from analysis.checks import CheckResult
from analysis.figures import figure, to_svg
from analysis.metric import Metric
from analysis.tables import MODEL, Facts

Measured = Mapping[str, tuple[Metric, pl.DataFrame, pl.DataFrame]]
_BLOCKS_MOST = 40
_SUMMARY = ("defined", "undefined", "missing", "mean", "median", "smallest", "largest", "last")


def report(
    facts: Facts,
    measurements: Measured,
    checks: Sequence[CheckResult],
    config: Mapping[str, Any] | None = None,
    broken: Mapping[str, str] | None = None,
) -> str:
    """The page of one run as HTML text.

    Args:
        facts: of the run.
        measurements: by name the metric, its table and its verdicts.
        checks: of the trace.
        config: what else the run's owner recorded about it, shown as it is.
        broken: metric files that did not load, with their errors.
    """
    verdicts = [row for _, _, rows in measurements.values() for row in rows.iter_rows(named=True)]
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            facts=_facts(facts),
            run_id=facts.run_id,
            counts={status: sum(row["status"] == status for row in verdicts) for status in _STATUSES},
            verdicts=verdicts,
            metrics=[_section(*measured) for measured in measurements.values()],
            checks=checks,
            config=dict(config or {}),
            broken=dict(broken or {}),
        )
    )


_STATUSES = ("FAILS", "INCONCLUSIVE", "HOLDS", "NOT APPLICABLE")


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


def _section(metric: Metric, table: pl.DataFrame, verdicts: pl.DataFrame) -> dict[str, Any]:
    rows = summary(table)
    blocks = rows.filter(pl.col("block").cast(pl.String) != MODEL)
    return {
        "metric": metric,
        "units": str(metric.units),
        # marked safe in the template: drawn here, its texts are outlines, so nothing of a user gets in as markup
        "svg": to_svg(figure(metric, table, verdicts)),
        "verdicts": verdicts.rows(named=True),
        "columns": _SUMMARY,
        "summary": rows.filter(pl.col("block").cast(pl.String) == MODEL).rows(named=True),
        "blocks": blocks.head(_BLOCKS_MOST).rows(named=True),
        "blocks_left_out": max(0, len(blocks) - _BLOCKS_MOST),
    }


def _facts(facts: Facts) -> dict[str, Any]:
    blocks = facts.blocks
    shown = ", ".join(blocks[:_BLOCKS_MOST]) + (
        f" and {len(blocks) - _BLOCKS_MOST} more" * (len(blocks) > _BLOCKS_MOST)
    )
    return {**asdict(facts), "parameters": f"{facts.parameters:,}", "blocks": f"{len(blocks)}: {shown}"}


def _number(value: object) -> str:
    """Up to five digits; a dash where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.5g}".replace("-", "−")
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("analysis", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    environment.filters["slug"] = lambda status: str(status).lower().replace(" ", "-")
    return environment
