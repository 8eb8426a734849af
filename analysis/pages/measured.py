"""What plates are drawn from, and what they have in common: two panels, words where a curve is missing."""

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.judging.battery import CONTROLS
from analysis.pages.drawing import Floats, canvas, dress, legend, scale, steps_below
from analysis.pages.panel import divided
from analysis.tables import MODEL, REFERENCE

WIDTH = 9.6
"""Inches of a plate."""
_HALF = 3.8  # of one of two panels beside each other
SEPARATOR = "   ·   "


@dataclass(frozen=True, eq=False)
class Measured:
    """What plates are drawn from.

    Args:
        run_id: of the run.
        found: by metric name its table and its verdicts.
        steps: the run's step records.
        profile: losses along steps as they were replayed, see :meth:`analysis.replayed.Replayed.profile`.
    """

    run_id: str
    found: Mapping[str, tuple[pl.DataFrame, pl.DataFrame]]
    steps: pl.DataFrame
    profile: pl.DataFrame | None = None

    def rows(self, metric: str, pairing: str) -> pl.DataFrame:
        """The model's rows of one pairing in order of steps; none where the metric was not measured."""
        if metric not in self.found:
            return pl.DataFrame(schema={"step": pl.Int64, "value": pl.Float64})
        table = self.found[metric][0]
        chosen = (pl.col("pairing").cast(pl.String) == pairing) & (pl.col("block").cast(pl.String) == MODEL)
        return table.filter(chosen).sort("step")

    def references(self, metric: str) -> list[str]:
        """Names of the reference points, the negative controls last."""
        if metric not in self.found:
            return []
        names = self.found[metric][0]["pairing"].cast(pl.String).unique(maintain_order=True)
        found = [name.removeprefix(REFERENCE) for name in names if name.startswith(REFERENCE)]
        return sorted(found, key=lambda name: name in CONTROLS)

    def why_not(self, metric: str, pairing: str) -> str:
        """Why there is nothing to draw, in the words of the verdict."""
        if metric not in self.found:
            return f"the metric {metric} was not measured"
        verdicts = self.found[metric][1]
        rows = verdicts.filter(pl.col("pairing") == pairing)
        reasons = [row["reason"] for row in rows.to_dicts() if row["missing"] or not row["pairs"]]
        return reasons[0] if reasons else f"no pairs with pairing {pairing!r}"

    def said(self, metric: str, pairing: str) -> str:
        """Claims and their statuses in one line."""
        if metric not in self.found:
            return ""
        verdicts = self.found[metric][1]
        rows = verdicts.filter((pl.col("pairing") == pairing) & (pl.col("rule") != "none"))
        return SEPARATOR.join(f"{row['claim']}: {row['status']}" for row in rows.to_dicts())


def beside(data: Measured, name: str, title: str) -> tuple[Figure, tuple[Axes, Axes]]:
    """A figure of two panels beside each other."""
    fig = canvas(f"plate-{name}", f"{title}      run {data.run_id}", (WIDTH, 4.2))
    left, right = divided(fig, 1, 2)
    return fig, (left, right)


def finish(panels: Iterable[Axes], unit: str, shared: Floats | None) -> None:
    """One scale for all panels where they show the same; legends below."""
    panels = list(panels)
    if shared is not None and len(shared):
        for axes in panels:
            scale(axes, shared)
        drawn = [axes for axes in panels if axes.lines or axes.collections]
        low = min(axes.get_ylim()[0] for axes in drawn)
        high = max(axes.get_ylim()[1] for axes in drawn)
        for axes in drawn:
            axes.set_ylim(low, high)
    for axes in panels:
        dress(axes, unit)
        steps_below(axes)
        legend(axes, _HALF)


def within(axes: Axes, low: float, high: float) -> None:
    """No more than the range in which a ratio means something; beyond it a denominator crosses zero."""
    now = axes.get_ylim()
    axes.set_ylim(max(low, now[0]), min(high, now[1]))


def wrapped(text: str, width: int = 58) -> list[str]:
    """Claims with their statuses, as many to a line as fit; none is broken in two."""
    lines = [""]
    for said in text.split(SEPARATOR):
        joined = f"{lines[-1]}{SEPARATOR}{said}" if lines[-1] else said
        lines = [*lines[:-1], joined] if len(joined) <= width or not lines[-1] else [*lines, said]
    return lines


def filled(text: str) -> str:
    """Words that stand in place of a curve, over several lines."""
    return textwrap.fill(text, 52)
