"""Several runs on one page: every claim against every run, and smoothness against the learning rate.

A single HTML file that fetches nothing. What a run has no current verdict for stays empty.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from analysis.pages.comparison_plates import smoothness_against_rate
from analysis.pages.grouped import STATUSES, Family, Group, families
from analysis.pages.page import environment
from analysis.pages.svg import glyph_sheet, to_svg
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
        momenta: of its steps, as the rates.
    """

    facts: Facts
    verdicts: pl.DataFrame
    findings: Sequence[Mapping[str, Any]] = ()
    rates: Sequence[float] = ()
    smoothness: Sequence[float] = ()
    config: Mapping[str, Any] | None = None
    momenta: Sequence[float] = ()


def compare(runs: Sequence[Compared], letters: Mapping[str, str]) -> str:
    """The page of several runs as HTML text.

    Args:
        runs: in the order of the columns.
        letters: letter of the family by metric.
    """
    found = [families(letters, run.verdicts.iter_rows(named=True)) for run in runs]
    glyphs: dict[str, str] = {}
    known = rates(runs)
    svg = to_svg(smoothness_against_rate(known), glyphs)
    page = {
        "runs": [run.facts for run in runs],
        "optimizers": known["optimizer"].to_list(),
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


def rates(runs: Sequence[Compared]) -> pl.DataFrame:
    """Learning rate, median and largest smoothness of the second half of each run; null where one is not known."""
    names = "lr", "smoothness_median", "smoothness_largest"
    rows = [
        {
            "run_id": run.facts.run_id,
            "optimizer": optimizer(run.facts, _usual(run.momenta)),
            **dict(zip(names, _second_half(run), strict=True)),
        }
        for run in runs
    ]
    return pl.DataFrame(rows, schema={"run_id": pl.String, "optimizer": pl.String, **dict.fromkeys(names, pl.Float64)})


def optimizer(facts: Facts, momentum: float | None) -> str:
    """Class of the optimizer without its module, and whether it had momentum.

    ``momentum``: the median of the second half; None where it is not known.
    """
    return facts.optimizer_class.rsplit(".", 1)[-1] + " with momentum" * bool(momentum and momentum > 0)


def _second_half(run: Compared) -> tuple[float | None, float | None, float | None]:
    values = pl.Series(run.smoothness, dtype=pl.Float64)
    values = values.tail(len(values) - len(values) // 2)
    values = values.filter(values.is_finite() & (values > 0))
    return _usual(run.rates), values.median(), values.max()  # type: ignore[return-value]


def _usual(numbers: Sequence[float]) -> float | None:
    """The median of the second half of those that are known."""
    known = pl.Series(numbers, dtype=pl.Float64).drop_nulls()
    return known.tail(len(known) - len(known) // 2).median()  # type: ignore[return-value]


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
