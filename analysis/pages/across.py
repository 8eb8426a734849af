"""What all runs of a home found, as two small tables: one row per run, and one per run and claim.

The figures are in :mod:`analysis.pages.comparison_plates`. A run without current verdicts is a row like any other,
with the reason: a comparison that leaves runs out in silence compares something else than its reader thinks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from analysis.judging.battery import CONTROLS
from analysis.judging.verdict import NOT_APPLICABLE
from analysis.metric import FAMILIES
from analysis.pages.comparison_plates import smoothness_against_rate, some, verdicts_by_optimizer, verdicts_by_run
from analysis.pages.grouped import STATUSES
from analysis.pages.page import environment
from analysis.pages.svg import Drawing, drawing, glyph_sheet
from analysis.tables import REFERENCE

CURRENT, OUTDATED, NOT_COMPUTED, UNREADABLE = "current", "outdated", "not computed", "not readable"
RUN_SCHEMA = pl.Schema(
    {
        **dict.fromkeys(("run_id", "state", "why", "optimizer"), pl.String),
        **dict.fromkeys(("parameters", "steps"), pl.Int64),
        **dict.fromkeys(("lr", "momentum", "smoothness_median", "smoothness_largest"), pl.Float64),
        **dict.fromkeys(("holds", "fails", "inconclusive", "not_applicable"), pl.Int64),
    }
)
"""A row per run: what is known of it, or why it is not compared. Rates and smoothness are of its second half."""
ANSWER_SCHEMA = pl.Schema(
    {
        **dict.fromkeys(("run_id", "metric", "claim", "kind", "status", "pairing"), pl.String),
        **dict.fromkeys(("same", "points"), pl.UInt32),
        **dict.fromkeys(("estimate", "lower", "upper"), pl.Float64),
    }
)
"""A row per run, claim and kind of pairing; of ``points`` reference points, ``same`` have this status."""
VERDICT_COLUMNS = ("run_id", "metric", "claim", "rule", "status", "pairing", "estimate", "lower", "upper")
_NAMED_MOST = 12  # runs that are named beside a status; of more the number


def answers(verdicts: pl.LazyFrame) -> pl.LazyFrame:
    """Verdicts of any number of runs, a row per run, claim and kind of pairing, as :data:`ANSWER_SCHEMA` has them.

    Of a claim about reference points it is the worst verdict; negative controls do not count. The same rule as
    :func:`analysis.pages.grouped.groups`, for hundreds of runs at once.

    Args:
        verdicts: rows of verdict tables, with :data:`VERDICT_COLUMNS`.
    """
    keys = ["run_id", "metric", "claim", "kind"]
    pairing = pl.col("pairing")
    judged = verdicts.filter((pairing != "unpaired") & (pl.col("rule") != "none")).with_columns(
        kind=pairing.str.split(":").list.first(),
        control=pairing.is_in([REFERENCE + name for name in CONTROLS]),
        rank=pl.col("status").replace_strict(STATUSES, range(len(STATUSES)), return_dtype=pl.Int8),
    )
    counted = pl.col("control") == pl.col("control").first()  # the controls only where there is nothing else
    same = (counted & (pl.col("status") == pl.col("status").first())).sum()
    return (
        judged.sort("control", "rank", maintain_order=True)
        .group_by(keys, maintain_order=True)
        .agg(
            pl.col("status").first(),
            pl.col("pairing").first(),
            same=same,
            points=counted.sum(),
            **{name: pl.col(name).first() for name in ("estimate", "lower", "upper")},
        )
        .select(list(ANSWER_SCHEMA))
        .sort(keys)
    )


def tally(found: pl.DataFrame) -> pl.DataFrame:
    """How many answers of each status a run has: ``run_id``, ``holds``, ``fails``, ``inconclusive``, …"""
    counts = {status.lower().replace(" ", "_"): (pl.col("status") == status).sum() for status in STATUSES}
    return found.group_by("run_id").agg(**{name: count.cast(pl.Int64) for name, count in counts.items()})


def second_half(values: pl.Expr) -> pl.Expr:
    """The later half of a column's values; of an odd number the one in the middle too."""
    return values.filter(pl.int_range(values.len()) >= values.len() // 2)


@dataclass(frozen=True, eq=False)
class Across:
    """All runs of a home.

    Args:
        runs: as :data:`RUN_SCHEMA` has them.
        answers: as :data:`ANSWER_SCHEMA` has them, of runs with current verdicts and of the current ones of others.
        findings: what each proof amounts to on a run: run_id, proof, status, reason.
    """

    runs: pl.DataFrame
    answers: pl.DataFrame
    findings: pl.DataFrame

    @property
    def left_out(self) -> pl.DataFrame:
        """Runs that are not compared, or not with everything."""
        return self.runs.filter(pl.col("state") != CURRENT)

    @property
    def said(self) -> str:
        """In a sentence how many of the runs are compared, and of which of them no figure of verdicts can say more."""
        counts = dict(self.runs.group_by("state").len().iter_rows())
        parts = [f"{counts[state]} {state}" for state in (OUTDATED, NOT_COMPUTED, UNREADABLE) if state in counts]
        said = f"{counts.get(CURRENT, 0)} of {len(self.runs)} runs are up to date" + "".join(f", {p}" for p in parts)
        shown = self.answers.filter(pl.col("status") != NOT_APPLICABLE)["run_id"].unique()
        silent = self.runs.filter(pl.col("state") == CURRENT, ~pl.col("run_id").is_in(shown.implode()))["run_id"].sort()
        if len(silent):
            stands = "stands" if len(silent) == 1 else "stand"
            said += f"; no claim applies to {some(silent.to_list())}, which {stands} in no figure of verdicts"
        return said


def figures(found: Across) -> dict[str, Drawing]:
    """What the page draws, by what it shows."""
    return {
        "smoothness against learning rate": drawing(smoothness_against_rate(found.runs)),
        "verdicts by optimizer": drawing(verdicts_by_optimizer(found.answers, found.runs)),
        "verdicts run by run": drawing(verdicts_by_run(found.answers, found.runs)),
    }


def page(
    found: Across, letters: Mapping[str, str], reports: Mapping[str, str], drawn: Mapping[str, Drawing] | None = None
) -> str:
    """The comparison as one HTML file that fetches nothing.

    Args:
        found: all runs.
        letters: letter of the family by metric.
        reports: where the report of a run is, seen from the page.
        drawn: its figures, as :func:`figures` makes them.
    """
    drawn = drawn or figures(found)
    glyphs = {letter: shape for _, shared in drawn.values() for letter, shape in shared.items()}
    content = {
        "said": found.said,
        "runs": found.runs.sort("run_id").to_dicts(),
        "left_out": found.left_out.sort("state", "run_id").to_dicts(),
        "reports": reports,
        "families": _families(found, letters),
        "proofs": _rows(found.findings.rename({"proof": "claim"}), found.runs, ["claim"]),
        "statuses": STATUSES,
        "svg": {name: svg for name, (svg, _) in drawn.items()},
        "glyphs": glyph_sheet(glyphs),
    }
    return environment().get_template("across.html.j2").render(content)


def _families(found: Across, letters: Mapping[str, str]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Per family its claims, those first on which the runs differ."""
    known = {name: letter if letter in FAMILIES else "" for name, letter in letters.items()}
    rows = _rows(found.answers, found.runs, ["metric", "claim", "kind"])
    together = {
        title: [row for row in rows if known.get(row["metric"], "") == letter] for letter, title in FAMILIES.items()
    }
    return [(title, of) for title, of in together.items() if of]


def _rows(found: pl.DataFrame, runs: pl.DataFrame, keys: Sequence[str]) -> list[dict[str, Any]]:
    """A row per claim: how many runs answer what, which ones where they are few, and each optimizer's counts."""
    told = found.filter(pl.col("status") != NOT_APPLICABLE).join(
        runs.select("run_id", "optimizer"), on="run_id", how="left", maintain_order="left"
    )
    rows = []
    for key, of in told.group_by(keys, maintain_order=True):
        by_status = {status: of.filter(pl.col("status") == status) for status in STATUSES}
        present = {status: len(each) for status, each in by_status.items() if len(each)}
        rows.append(
            {
                **dict(zip(keys, key, strict=True)),
                "counts": {status: len(each) for status, each in by_status.items()},
                "named": {s: _names(by_status[s]) for s in present} if len(present) > 1 else {},
                "worst": min(STATUSES.index(status) for status in present),
                "estimate": of["estimate"].median() if "estimate" in of.columns else None,
            }
        )
    return sorted(rows, key=lambda row: (not row["named"], row["worst"]))


def _names(of: pl.DataFrame) -> str:
    if len(of) <= _NAMED_MOST:
        return ", ".join(of["run_id"].sort())
    counts = of.group_by("optimizer").len().sort("len", "optimizer", descending=[True, False])
    return ", ".join(f"{count} of {name}" for name, count in counts.iter_rows())
