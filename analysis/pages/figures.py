"""A metric's course along a run as a figure for print and for the page, drawn from its record and its tables.

The pairing that comes first is drawn value by value with its series, claimed bounds and violations; of every other
pairing the average, so that fresh and in-sample, or one reference and another, can be compared. Windows of a ratio are
drawn as sums over sums.
"""

from collections.abc import Iterator

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.judging.battery import CONTROLS
from analysis.metric import Metric
from analysis.pages.drawing import (
    AVERAGE,
    CONTROL_LINES,
    DASHED,
    DOTTED,
    EXTREME,
    FURTHER,
    INK,
    LIMIT,
    OTHER,
    Style,
    canvas,
    defined,
    dress,
    heading,
    legend,
    line,
    marks,
    points,
    scale,
    steps_below,
    ticks_below,
    zero,
)
from analysis.pages.layout import LEFT
from analysis.pages.panel import divided
from analysis.series import Series
from analysis.tables import MODEL, PAIRINGS, REFERENCE, pairing_kind

WIDTH = 7.2  # inches
_COLOURS = {"average": (AVERAGE, OTHER), "extreme": (EXTREME, OTHER), "cumulative": (AVERAGE, OTHER), "limit": (LIMIT,)}
_OTHERS_MOST = 8  # further pairings in one figure


def figure(
    metric: Metric,
    table: pl.DataFrame,
    verdicts: pl.DataFrame,
    windows: pl.DataFrame | None = None,
    *,
    titled: bool = True,
) -> Figure:
    """The values of the whole model with their series, claimed bounds and violations; sums in a second panel.

    Args:
        metric: the record.
        table, verdicts, windows: as :func:`analysis.measure.measure` gives them; windows are drawn for ratios.
        titled: with the metric's title; a page that has it as a heading needs it only once.
    """
    model = table.filter(pl.col("block").cast(pl.String) == MODEL).with_columns(pl.col("pairing").cast(pl.String))
    drawn = dict(_pairings(metric, model))
    pairing, rows = next(iter(drawn.items()), (metric.pairings[0], model.clear()))
    sums = [s for s in metric.series if s.role == "cumulative" and len(defined(rows, s.name)[0])]
    fig = canvas(metric.name, metric.title if titled else "", (WIDTH, 5.4 if sums else 3.9))
    panels = divided(fig, 2 if sums else 1, 1, sharex=True, squeeze=False, height_ratios=[3, 2] if sums else [1])[:, 0]
    top: Axes = panels[0]
    _values(top, metric, rows, verdicts, pairing)
    if pairing != "unpaired":
        _others(top, metric, {name: part for name, part in drawn.items() if name not in (pairing, "unpaired")})
        _windows(top, metric, windows, pairing)
    heading(top, list(_words(metric, verdicts, pairing, len(drawn) > 1)))
    if sums:
        for series, colour in zip(sums, _COLOURS["cumulative"] * len(sums), strict=False):
            line(panels[1], *defined(rows, series.name), series.title, colour)
        zero(panels[1])
    for panel in panels:
        dress(panel, str(metric.units))
        legend(panel, WIDTH - LEFT)
    for panel in panels[:-1]:
        panel.xaxis.set_visible(False)  # the steps are read at the lowest panel
    steps_below(panels[-1])
    return fig


def _pairings(metric: Metric, model: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Pairings that have a value, in the metric's order; unpaired ones last."""
    kinds = [*metric.pairings, *(p for p in PAIRINGS if p not in metric.pairings)]
    names = sorted(model["pairing"].unique(), key=lambda name: (kinds.index(pairing_kind(name)), name))
    if f"reference:{_FIRST}" in names:
        at = min(i for i, name in enumerate(names) if pairing_kind(name) == "reference")
        names.insert(at, names.pop(names.index(f"reference:{_FIRST}")))
    for name in names:
        rows = model.filter((pl.col("pairing") == name) & pl.col("value").is_not_null()).sort("step")
        if len(rows):
            yield name, rows


_FIRST = "last"  # the reference drawn value by value


def _values(axes: Axes, metric: Metric, rows: pl.DataFrame, verdicts: pl.DataFrame, pairing: str) -> None:
    step, value = defined(rows, "value")
    if not len(value):
        axes.text(0.5, 0.5, "no defined value", transform=axes.transAxes, ha="center", color=INK, fontsize=11)
        return
    scale(axes, value)
    points(axes, step, value)
    judged = pairing != "unpaired"
    _bounds(axes, metric, judged)
    applies = set(verdicts.filter((pl.col("pairing") == pairing) & (pl.col("status") != "NOT APPLICABLE"))["claim"])
    for role in ("extreme", "average", "limit"):
        shown = [s for s in metric.series if s.role == role and (role != "limit" or (judged and s.claim in applies))]
        for series, colour in zip(shown, _COLOURS[role] * len(shown), strict=False):
            style, width = "--" if role == "limit" else "-", 1.8 if colour == _COLOURS[role][0] else 1.1
            line(axes, *defined(rows, series.name), _short(series), colour, style, width)
    if judged:
        _mark_violations(axes, metric, rows, applies)
    undefined = rows.filter(~pl.col("value").is_finite())["step"].to_numpy()
    if len(undefined):
        ticks_below(axes, undefined, f"undefined ({len(undefined):,})")


def _others(axes: Axes, metric: Metric, parts: dict[str, pl.DataFrame]) -> None:
    """The average of every further pairing."""
    averages = [s for s in metric.series if s.role == "average"]
    if not averages:
        return
    controls = {REFERENCE + name: colour for name, colour in zip(CONTROLS, CONTROL_LINES, strict=True)}
    shown = [*parts.items()][:_OTHERS_MOST]
    good = [name for name, _ in shown if name not in controls]
    # colours come again with dots: nothing here has the colour of a limit or a maximum
    looks: dict[str, tuple[str, Style]] = dict(
        zip(good, [(colour, style) for style in (DASHED, DOTTED) for colour in FURTHER], strict=False)
    )
    for name, rows in shown:
        colour, style = looks.get(name) or (controls[name], DASHED)
        line(axes, *defined(rows, averages[-1].name), f"{name}: {_short(averages[-1])}", colour, style, 1.0)


def _windows(axes: Axes, metric: Metric, windows: pl.DataFrame | None, pairing: str) -> None:
    """Of a ratio, the sum over the sum of each window."""
    if metric.ratio is None or windows is None or not len(windows):
        return
    chosen = windows.filter(
        (pl.col("pairing").cast(pl.String) == pairing)
        & (pl.col("block").cast(pl.String) == MODEL)
        & pl.col("window").str.starts_with("steps")
        & pl.col("ratio").is_finite()
    ).sort("first_step")
    if len(chosen):
        ends = np.stack([chosen["first_step"].to_numpy(), chosen["last_step"].to_numpy()], axis=1)
        axes.hlines(chosen["ratio"], ends[:, 0], ends[:, 1], color=EXTREME, lw=2.2, label="sum over sum, per window")


def _short(series: Series) -> str:
    return series.title.split(",")[0]


def _bounds(axes: Axes, metric: Metric, judged: bool) -> None:
    """A line for each bound on the value itself."""
    about_the_value = {"every step", "on average", "ratio", "quantile", "equivalent"}
    bounds = {
        c.bound: c
        for c in metric.claims
        if c.over in about_the_value and (c.quantity is None or (c.bound == 0 and c.over != "ratio"))
    }
    for bound, claim in bounds.items() if judged else ():
        side = "≤" if claim.sign > 0 else "≥"
        axes.axhline(bound, color=INK, lw=1, ls=(0, (4, 3)), label=f"claimed: {side} {bound:g}")


def _mark_violations(axes: Axes, metric: Metric, rows: pl.DataFrame, applies: set[str]) -> None:
    tolerance = pl.col("tolerance").fill_null(np.inf)
    beyond = [
        (pl.col("value") - pl.col(s.name) > tolerance)
        for s in metric.series
        if s.role == "limit" and s.claim in applies
    ]
    beyond += [
        ((pl.col("value") - c.bound) * c.sign > tolerance)
        for c in metric.claims
        if c.over == "every step" and c.name in applies and (c.quantity is None or c.bound == 0)
    ]
    if not beyond:
        return
    step, value = defined(rows.filter(pl.col("value").is_finite() & pl.any_horizontal(beyond)), "value")
    if len(value):
        marks(axes, step, value, f"beyond the bound ({len(value):,})")


def _words(metric: Metric, verdicts: pl.DataFrame, pairing: str, several: bool) -> Iterator[str]:
    run = str(verdicts["run_id"][0]) if len(verdicts) else ""
    run = run if len(run) <= _RUN_MOST else run[:_RUN_MOST] + "…"
    named = f"points: {pairing}" if several or pairing_kind(pairing) == "reference" else ""
    yield from _lines([metric.formula if len(metric.formula) < 70 else "", run and f"run {run}", named], "      ")
    if pairing == "unpaired":
        yield "UNPAIRED minibatches: mostly noise of the data, never a verdict"
        return
    rows = verdicts.filter((pl.col("pairing") == pairing) & (pl.col("rule") != "none"))
    yield from _lines([f"{row['claim']}: {row['status']}" for row in rows.iter_rows(named=True)], "   ·   ")


_RUN_MOST, _LINE_MOST = 40, 94  # characters of a run's name; of a line


def _lines(said: list[str], between: str) -> Iterator[str]:
    """As many of the words in each line as fit."""
    line = ""
    for each in filter(None, said):
        if line and len(line) + len(between) + len(each) > _LINE_MOST:
            yield line
            line = ""
        line += between + each if line else each
    if line:
        yield line


def drawable(table: pl.DataFrame) -> bool:
    """Whether a metric's table has a value to draw: one that was measured, be it undefined."""
    return table["value"].null_count() < len(table)
