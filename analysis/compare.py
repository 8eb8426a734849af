"""Several runs on one page: every claim against every run, and smoothness against the learning rate.

A single HTML file that fetches nothing. What a run has no current verdict for stays empty.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from analysis.drawing import AVERAGE, EXTREME, INK, LIMIT, canvas, dress, heading, nothing, powers
from analysis.grouped import STATUSES, Family, Group, families
from analysis.page import environment
from analysis.svg import glyph_sheet, to_svg
from analysis.tables import Facts, pairing_kind


@dataclass(frozen=True, eq=False)
class Compared:
    """One of the runs.

    Args:
        facts: of the run.
        verdicts: of all its metrics.
        findings: what each proof amounts to, as dictionaries with proof, status and reason.
        rates: learning rates of its steps, in order; empty where none was recorded.
        smoothness: of each fresh pair, in order of steps; empty where it was not measured.
        config: what the run's owner recorded about it.
    """

    facts: Facts
    verdicts: pl.DataFrame
    findings: Sequence[Mapping[str, Any]] = ()
    rates: Sequence[float] = ()
    smoothness: Sequence[float] = ()
    config: Mapping[str, Any] | None = None


def compare(runs: Sequence[Compared], letters: Mapping[str, str]) -> str:
    """The page of several runs as HTML text.

    Args:
        runs: in the order of the columns.
        letters: letter of the family by metric.
    """
    found = [families(letters, run.verdicts.iter_rows(named=True)) for run in runs]
    glyphs: dict[str, str] = {}
    svg = to_svg(smoothness_against_rate(runs), glyphs)
    page = {
        "runs": [run.facts for run in runs],
        "configs": [dict(run.config or {}) for run in runs],
        "tables": _tables(found),
        "counts": [
            {status: sum(family.counts[status] for family in of_run) for status in STATUSES} for of_run in found
        ],
        "proofs": _proofs(runs),
        "statuses": STATUSES,
        "svg": svg,
        "glyphs": glyph_sheet(glyphs),
    }
    return environment().get_template("compare.html.j2").render(page)


def smoothness_against_rate(runs: Sequence[Compared]) -> Figure:
    """Median and largest smoothness of the second half of each run against its learning rate, beside 2/lr."""
    fig = canvas("smoothness-against-rate", "Local smoothness against the learning rate", (7.2, 4.4))
    axes = fig.subplots()
    known = [(run, *values) for run in runs if (values := _second_half(run)) is not None]
    if not known:
        nothing(axes, "no run has both a learning rate and fresh pairs with gradients at two points")
        return fig
    heading(
        axes,
        ["Fresh pairs, second half of each run. At an edge of stability the values follow 2/lr (gradient descent)"],
    )
    for run, rate, median, largest in known:
        axes.plot([rate, rate], [median, largest], color=AVERAGE, lw=1.2, alpha=0.6)
        axes.plot([rate], [median], "o", ms=7, color=AVERAGE)
        axes.plot([rate], [largest], "^", ms=7, color=EXTREME)
        axes.annotate(run.facts.run_id, (rate, median), (7, -3), textcoords="offset points", fontsize=8, color=INK,
                      parse_math=False)  # fmt: skip
    rates = sorted({rate for _, rate, _, _ in known})
    line = [rates[0] / 1.5, rates[-1] * 1.5]
    axes.plot(line, [2 / rate for rate in line], "--", color=LIMIT, lw=1.4, label="2 / lr")
    axes.plot([], [], "o", color=AVERAGE, label="median")
    axes.plot([], [], "^", color=EXTREME, label="largest")
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        powers(axis)
        axis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.25)
    dress(axes, "loss / distance²")
    axes.set_xlabel("learning rate", color=INK, fontsize=9, loc="right")
    axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    return fig


def _second_half(run: Compared) -> tuple[float, float, float] | None:
    """Learning rate, median and largest smoothness; None where one of them is not known."""
    rates = pl.Series(run.rates, dtype=pl.Float64).drop_nulls()
    values = pl.Series(run.smoothness, dtype=pl.Float64)
    values = values.tail(len(values) - len(values) // 2)
    values = values.filter(values.is_finite() & (values > 0))
    rate = rates.tail(len(rates) - len(rates) // 2).median()
    if not len(values) or not isinstance(rate, float) or rate <= 0:
        return None
    return rate, float(values.median()), float(values.max())  # type: ignore[arg-type]


Key = tuple[str, str, str]  # metric, claim, kind of pairing


def _tables(found: Sequence[Sequence[Family]]) -> list[dict[str, Any]]:
    """Per family a row for each claim with a cell per run; claims that apply to no run are only counted."""
    tables = []
    titles = {family.letter: family.title for of_run in found for family in of_run}
    for letter in sorted(titles, key=lambda each: (each == "", each)):
        cells: list[dict[Key, Group]] = [
            {_key(group): group for family in of_run if family.letter == letter for group in family.groups}
            for of_run in found
        ]
        keys = dict.fromkeys(key for of_run in cells for key in of_run)
        rows = [(key, [of_run.get(key) for of_run in cells]) for key in keys]
        applicable = [(key, row) for key, row in rows if any(g and g.status != "NOT APPLICABLE" for g in row)]
        tables.append(
            {
                "title": titles[letter],
                "rows": sorted(
                    ((*key, row, _differs(row)) for key, row in applicable), key=lambda r: (not r[4], _worst(r[3]))
                ),
                "left_out": len(rows) - len(applicable),
            }
        )
    return tables


def _key(group: Group) -> Key:
    return group.metric, group.claim, pairing_kind(group.row["pairing"])


def _differs(row: Sequence[Group | None]) -> bool:
    """Whether two of the runs that the claim applies to have another answer."""
    return len({group.status for group in row if group and group.status != "NOT APPLICABLE"}) > 1


def _worst(row: Sequence[Group | None]) -> int:
    return min(STATUSES.index(group.status) for group in row if group)


def _proofs(runs: Sequence[Compared]) -> list[tuple[str, list[Mapping[str, Any] | None]]]:
    names = dict.fromkeys(str(finding["proof"]) for run in runs for finding in run.findings)
    return [(name, [next((f for f in run.findings if f["proof"] == name), None) for run in runs]) for name in names]
