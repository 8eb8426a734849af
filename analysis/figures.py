"""A metric's course along a run as a figure for print and for the page.

Everything is drawn from the metric's record and its tables. Up to a few thousand steps are drawn one by one; of longer
runs the envelope of smallest and largest values, so that no extreme is lost. Figures are plain objects: no global
state of the plotting library is touched, so any thread may draw.
"""

import io
import re

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.metric import Metric
from analysis.tables import MODEL

INK, RULE = "#24292f", "#d0d7de"
# distinguishable with every kind of colour vision (after Okabe and Ito), readable on white and on dark grey
VALUE, AVERAGE, EXTREME, LIMIT, VIOLATION, OTHER = "#8298ae", "#1f83c4", "#b5669a", "#0f9d76", "#d55e00", "#d99000"
_COLOURS = {"average": (AVERAGE, OTHER), "extreme": (EXTREME, OTHER), "cumulative": (AVERAGE, OTHER), "limit": (LIMIT,)}
SINGLE_MOST, BINS = 1500, 500  # values drawn one by one; bins of longer runs
_LARGEST = 1e200
_DECADES = 50.0  # beyond this ratio of large to usual a linear axis hides most of the values

Floats = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int64]


def figure(metric: Metric, table: pl.DataFrame, verdicts: pl.DataFrame) -> Figure:
    """The values of the whole model with their series, claimed bounds and violations; sums in a second panel.

    Args:
        metric: the record.
        table, verdicts: as :func:`analysis.measure.measure` gives them.
    """
    rows, pairing = _rows(metric, table)
    sums = [s for s in metric.series if s.role == "cumulative" and rows[s.name].drop_nulls().len()]
    fig = Figure(figsize=(7.2, 5.4 if sums else 3.9), layout="constrained", facecolor="white")
    fig.set_label(metric.name)
    panels = fig.subplots(2 if sums else 1, 1, sharex=True, squeeze=False, height_ratios=[3, 2] if sums else [1])[:, 0]
    top: Axes = panels[0]
    _values(top, metric, rows, verdicts, pairing)
    _heading(top, metric, verdicts, pairing)
    if sums:
        for series, colour in zip(sums, _COLOURS["cumulative"] * len(sums), strict=False):
            step, value = _thin(*_defined(rows, series.name))
            panels[1].plot(step, value, color=colour, lw=1.6, label=series.title)
        panels[1].axhline(0, color=INK, lw=0.7, alpha=0.6)
    for panel in panels:
        _dress(panel, str(metric.units), legend_at=0.0 if panel is not panels[-1] else -0.15 if sums else -0.09)
    panels[-1].set_xlabel("step", color=INK, fontsize=9, loc="right")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return fig


def to_png(fig: Figure, dpi: int = 150) -> bytes:
    """The figure as a PNG file."""
    out = io.BytesIO()
    fig.savefig(out, format="png", dpi=dpi)
    return out.getvalue()


def to_svg(fig: Figure) -> str:
    """The figure as an ``<svg>`` element that can stand in a page among others and follows the page's ink.

    The same figure gives the same text. The background is transparent; lines and letters take the custom properties
    ``--ink`` and ``--rule`` where the page sets them.
    """
    out = io.StringIO()
    fig.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    name = re.sub(r"\W", "-", str(fig.get_label())) or "figure"
    numbers: dict[str, str] = {}
    for found in re.findall(r'\bid="([^"]+)"', text):
        numbers.setdefault(found, f"{name}-{len(numbers)}")
    text = re.sub(r'\bid="([^"]+)"', lambda m: f'id="{numbers[m[1]]}"', text)
    text = re.sub(r'(url\(#|href="#)([^")]+)', lambda m: m[1] + numbers.get(m[2], m[2]), text)
    text = text.replace(INK, f"var(--ink, {INK})").replace(RULE, f"var(--rule, {RULE})")
    return text.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)


def _rows(metric: Metric, table: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """The model's rows of the first pairing that has a value, and that pairing."""
    model = table.filter(pl.col("block").cast(pl.String) == MODEL).with_columns(pl.col("pairing").cast(pl.String))
    for pairing in (*metric.pairings, "unpaired"):
        rows = model.filter((pl.col("pairing") == pairing) & pl.col("value").is_not_null())
        if len(rows):
            return rows.sort("step"), pairing
    return model.clear(), metric.pairings[0]


def _values(axes: Axes, metric: Metric, rows: pl.DataFrame, verdicts: pl.DataFrame, pairing: str) -> None:
    step, value = _defined(rows, "value")
    if not len(value):
        axes.text(0.5, 0.5, "no defined value", transform=axes.transAxes, ha="center", color=INK, fontsize=11)
        return
    _scale(axes, value)
    if len(value) <= SINGLE_MOST:
        axes.plot(step, value, ".", ms=7 if len(value) < 200 else 4.5, color=VALUE, mew=0, label="value")
    else:
        middle, low, high = _envelope(step, value)
        axes.fill_between(middle, low, high, color=VALUE, alpha=0.55, lw=0, label=f"values (range of {len(value):,})")
    judged = pairing != "unpaired"
    _bounds(axes, metric, judged)
    applies = set(verdicts.filter((pl.col("pairing") == pairing) & (pl.col("status") != "NOT APPLICABLE"))["claim"])
    for role in ("extreme", "average", "limit"):
        shown = [s for s in metric.series if s.role == role and (role != "limit" or (judged and s.claim in applies))]
        for series, colour in zip(shown, _COLOURS[role] * len(shown), strict=False):
            style = "--" if role == "limit" else "-"
            label = series.title.split(",")[0]
            width = 1.8 if colour == _COLOURS[role][0] else 1.1
            axes.plot(*_thin(*_defined(rows, series.name)), style, color=colour, lw=width, label=label)
    if judged:
        _mark_violations(axes, metric, rows, applies)
    undefined = rows.filter(~pl.col("value").is_finite())["step"].to_numpy()
    if len(undefined):
        at = undefined if len(undefined) <= BINS else undefined[np.linspace(0, len(undefined) - 1, BINS).astype(int)]
        label = f"undefined ({len(undefined):,})"
        bottom = np.full(len(at), 0.015)
        axes.plot(at, bottom, "|", transform=axes.get_xaxis_transform(), color=VIOLATION, ms=7, label=label)


def _bounds(axes: Axes, metric: Metric, judged: bool) -> None:
    """A line for each bound on the value itself."""
    bounds = {c.bound: c for c in metric.claims if c.over != "trend" and (c.quantity is None or c.bound == 0)}
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
    found = rows.filter(pl.col("value").is_finite() & pl.any_horizontal(beyond))
    step, value = _defined(found, "value")
    if len(value):
        label = f"beyond the bound ({len(value):,})"
        if len(value) > BINS:
            starts = _bins(len(value))
            step, value = step[starts], np.maximum.reduceat(value, starts)
        axes.plot(step, value, "x", color=VIOLATION, ms=3.5, mew=0.9, label=label, zorder=5)


def _heading(axes: Axes, metric: Metric, verdicts: pl.DataFrame, pairing: str) -> None:
    rows = verdicts.filter((pl.col("pairing") == pairing) & (pl.col("rule") != "none"))
    said = [f"{row['claim']}: {row['status']}" for row in rows.iter_rows(named=True)]
    if pairing == "unpaired":
        said = ["UNPAIRED minibatches: mostly noise of the data, never a verdict"]
    run = verdicts["run_id"][0] if len(verdicts) else ""
    lines = [f"{metric.formula}      run {run}" if len(metric.formula) < 70 else f"run {run}", "   ·   ".join(said)]
    axes.set_title("\n".join(line for line in lines if line), loc="left", fontsize=8.5, color=INK, parse_math=False)
    axes.figure.suptitle(metric.title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK, parse_math=False)


def _dress(axes: Axes, unit: str, legend_at: float) -> None:
    axes.set_facecolor("none")
    axes.set_ylabel(unit, color=INK, fontsize=9)
    axes.tick_params(colors=INK, labelsize=8.5, which="both")
    axes.grid(color=RULE, lw=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
    if axes.get_legend_handles_labels()[0]:
        # below the axes, where it hides no value
        legend = axes.legend(
            loc="upper left",
            bbox_to_anchor=(0, legend_at),
            frameon=False,
            fontsize=8,
            labelcolor=INK,
            ncols=4,
            columnspacing=1.2,
            borderaxespad=0.3,
        )
        for words in legend.get_texts():
            words.set_parse_math(False)  # a dollar sign in a title is a dollar sign


def _scale(axes: Axes, value: Floats) -> None:
    size = np.abs(value[value != 0])
    if not len(size) or size.max() <= _DECADES * np.median(size):
        return
    if (value > 0).all():
        axes.set_yscale("log")
        return
    # linear as far as half of the values reach, so that a mean that crosses zero stays readable; a run that explodes
    # would put everything before it on that line
    usual = np.quantile(size, 0.5 if size.max() < 1e12 * size.min() else 0.1)
    decades = np.log10(size.max() / usual)
    # the linear part keeps room for its labels beside many decades
    axes.set_yscale("symlog", linthresh=10.0 ** np.floor(np.log10(usual)), linscale=max(1.5, 0.1 * decades))


def _defined(rows: pl.DataFrame, name: str) -> tuple[Steps, Floats]:
    kept = rows.filter(pl.col(name).is_finite())
    # a diverging run's last values leave no room for an axis's margins in double precision
    return kept["step"].to_numpy(), np.clip(kept[name].to_numpy(), -_LARGEST, _LARGEST)


def _bins(n: int) -> Steps:
    return np.linspace(0, n, BINS + 1).astype(np.int64)[:-1]


def _envelope(step: Steps, value: Floats) -> tuple[Floats, Floats, Floats]:
    starts = _bins(len(value))
    ends = np.append(starts[1:], len(value)) - 1
    middle = (step[starts] + step[ends]) / 2
    return middle, np.minimum.reduceat(value, starts), np.maximum.reduceat(value, starts)


def _thin(step: Steps, value: Floats) -> tuple[Steps, Floats]:
    """Of a long line, the smallest and largest point of each bin, in order."""
    if len(value) <= 2 * SINGLE_MOST:
        return step, value
    parts = np.split(np.arange(len(value)), _bins(len(value))[1:])
    kept = np.unique([p[i] for p in parts for i in (value[p].argmin(), value[p].argmax())])
    return step[kept], value[kept]
