"""How every figure here is drawn: colours, axes, points, lines, legends.

Figures are plain objects: no global state of the plotting library is touched, so any thread may draw. Up to some
hundred values are drawn one by one; of more the envelope of smallest and largest, so that no extreme is lost.
"""

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import AutoLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator, SymmetricalLogLocator

from analysis.pages.layout import TITLE, Panels
from analysis.pages.panel import Key

INK, RULE = "#24292f", "#d0d7de"
# distinguishable with every kind of colour vision (after Okabe and Ito), readable on white and on dark grey
VALUE, AVERAGE, EXTREME, LIMIT, VIOLATION, OTHER = "#8298ae", "#1f83c4", "#b5669a", "#0f9d76", "#d55e00", "#d99000"
LINES = (AVERAGE, OTHER, LIMIT, EXTREME, "#5b6fd6", "#8a6d3b", "#c2557a", "#4d8f8f")
FURTHER = LINES[4:]
"""Colours that stand for nothing else in the figure of a metric."""
CONTROL_LINES = ("#57606a", "#9aa4af")
"""Greys, for points that are no solution; readable on white and on dark grey."""
SINGLE_MOST, BINS = 800, 240  # values drawn one by one; bins of longer runs
TICKS_MOST = 5  # of an axis: a tick is several drawings, and the largest part of a figure's time
_LARGEST = 1e200
_DECADES = 50.0  # beyond this ratio of large to usual a linear axis hides most of the values
_PER_CHARACTER, _PER_BOLD = 0.068, 0.112  # inches of a legend's letters and of a title's, generously

Floats = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int64]


def canvas(name: str, title: str, size: tuple[float, float], *, measured: bool = False) -> Figure:
    """An empty figure.

    Args:
        name: becomes the prefix of its ids in an SVG.
        title: above all panels.
        size: inches.
        measured: letters are measured to make room for them, which doubles the time; for figures whose labels can have
            any length, or whose legend stands outside the panels.
    """
    # the title stands in a place of its own, which the library's layout does not know
    above = TITLE / size[1] if title else 0.0
    layout = ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - above)) if measured else Panels()
    fig = Figure(figsize=size, layout=layout, facecolor="white")
    fig.set_label(name)
    if title:
        words = subscripts(title)
        letters = min(12.0, 12 * size[0] / (_PER_BOLD * len(words)))
        fig.suptitle(words, x=0.01, y=1 - 0.07 / size[1], ha="left", va="top", fontsize=letters, fontweight="bold",
                     color=INK, parse_math=False)  # fmt: skip
    return fig


_INDEX = re.compile(r"(?<![A-Za-z_])([A-Za-z∇])_(?:\{([^}]+)\}|([a-z0-9])(?![A-Za-z0-9_]))")
_LOWERED = str.maketrans("trksn012+−", "ₜᵣₖₛₙ₀₁₂₊₋")


def subscripts(text: str) -> str:
    """``x_{t−1}`` as print has it, xₜ₋₁; an index for which there are no such letters stays as it is."""

    def lowered(found: re.Match[str]) -> str:
        index = (found[2] or found[3]).translate(_LOWERED)
        return found[1] + index if not set(index) & set(found[2] or found[3]) else found[0]

    return _INDEX.sub(lowered, text)


def defined(rows: pl.DataFrame, name: str) -> tuple[Steps, Floats]:
    """Steps and numbers of a column where it is a number."""
    kept = rows.filter(pl.col(name).is_finite())
    # a diverging run's last values leave no room for an axis's margins in double precision
    return kept["step"].to_numpy(), np.clip(kept[name].to_numpy(), -_LARGEST, _LARGEST)


def points(axes: Axes, step: Steps, value: Floats, label: str = "value", colour: str = VALUE) -> None:
    """Single values, or the range of many; nothing, and no word in a legend, of none."""
    if not len(value):
        return
    if len(value) <= SINGLE_MOST:
        axes.plot(step, value, ".", ms=7 if len(value) < 200 else 4.5, color=colour, mew=0, label=label)
    else:
        middle, low, high = _envelope(step, value)
        axes.fill_between(middle, low, high, color=colour, alpha=0.55, lw=0, label=f"{label} (range of {len(value):,})")


Style = str | tuple[int, tuple[float, ...]]
DASHED: Style = (0, (3, 1))
DOTTED: Style = (0, (1, 1.5))


def line(
    axes: Axes, step: Steps, value: Floats, label: str, colour: str, style: Style = "-", width: float = 1.6
) -> None:
    """One number per step as a line, a single one as a point; nothing, and no word in a legend, of none."""
    if len(step):
        mark = "." if len(step) == 1 else "None"
        axes.plot(*thin(step, value), linestyle=style, marker=mark, color=colour, lw=width, label=label)


def marks(axes: Axes, step: Steps, value: Floats, label: str) -> None:
    """Crosses where something is beyond its bound; of many, the largest of each bin."""
    if len(value) > BINS:
        starts = _bins(len(value))
        step, value = step[starts], np.maximum.reduceat(value, starts)
    axes.plot(step, value, "x", color=VIOLATION, ms=3.5, mew=0.9, label=label, zorder=5)


def ticks_below(axes: Axes, step: Steps, label: str) -> None:
    """Strokes at the bottom of the axes, where there is no number to draw."""
    at = step if len(step) <= BINS else step[np.linspace(0, len(step) - 1, BINS).astype(int)]
    bottom = np.full(len(at), 0.015)
    axes.plot(at, bottom, "|", transform=axes.get_xaxis_transform(), color=VIOLATION, ms=7, label=label)


def zero(axes: Axes) -> None:
    """The line of no change."""
    axes.axhline(0, color=INK, lw=0.7, alpha=0.6)


def nothing(axes: Axes, why: str) -> None:
    """Words in place of a curve: what is missing and why."""
    axes.text(0.5, 0.5, subscripts(why), transform=axes.transAxes, ha="center", va="center", color=INK, fontsize=9,
              wrap=True, parse_math=False)  # fmt: skip
    axes.set_axis_off()


def heading(axes: Axes, lines: Sequence[str]) -> None:
    """Small words above a panel."""
    text = subscripts("\n".join(each for each in lines if each))
    # a place of its own, or the library draws every label to find one
    axes.set_title(text, loc="left", y=1.0, pad=7, fontsize=8.5, color=INK, parse_math=False)


def dress(axes: Axes, unit: str) -> None:
    """Unit, grid and frame."""
    axes.set_facecolor("none")
    axes.set_ylabel(unit, color=INK, fontsize=9)
    # every tick is five drawings: the grid stands for the strokes
    axes.tick_params(colors=INK, labelsize=8.5, length=0)
    axes.yaxis.set_minor_locator(NullLocator())
    major = axes.yaxis.get_major_locator()
    if isinstance(major, LogLocator | SymmetricalLogLocator):
        major.set_params(numticks=TICKS_MOST)
    elif isinstance(major, AutoLocator):
        axes.yaxis.set_major_locator(MaxNLocator(TICKS_MOST, steps=[1, 2, 2.5, 5, 10]))
    axes.grid(axis="y", color=RULE, lw=0.6)
    axes.set_axisbelow(True)
    offset = axes.yaxis.get_offset_text()
    offset.set_color(INK)
    offset.set_horizontalalignment("right")  # beside the words above, not under them
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)


def legend(axes: Axes, width: float) -> None:
    """What each line is, below the axes, where it hides no value.

    Args:
        axes: with labelled lines.
        width: of the axes in inches; long words get fewer columns.
    """
    words = axes.get_legend_handles_labels()[1]
    if not words:
        return
    columns = max(1, min(4, int(width / (0.45 + _PER_CHARACTER * max(map(len, words))))))
    axes.add_artist(Key(axes, [subscripts(each) for each in words], columns, 8.0, INK)).set_clip_on(False)


def steps_below(axes: Axes) -> None:
    """The axis of steps."""
    axes.set_xlabel("step", color=INK, fontsize=9, loc="right")
    axes.xaxis.set_major_locator(MaxNLocator(TICKS_MOST, integer=True, steps=[1, 2, 5, 10]))
    axes.tick_params(axis="x", length=3)


def scale(axes: Axes, value: Floats) -> None:
    """A scale on which most of ``value`` can be read: linear, logarithmic, or both with zero in between."""
    size = np.abs(value[value != 0])
    if not len(size) or size.max() <= _DECADES * np.median(size):
        return
    if (value > 0).all():
        axes.set_yscale("log")
        powers(axes.yaxis)
        return
    # linear as far as half of the values reach, so that a mean that crosses zero stays readable; a run that explodes
    # would put everything before it on that line
    usual = np.quantile(size, 0.5 if size.max() < 1e12 * size.min() else 0.1)
    decades = np.log10(size.max() / usual)
    # the linear part keeps room for its labels beside many decades
    axes.set_yscale("symlog", linthresh=10.0 ** np.floor(np.log10(usual)), linscale=max(1.5, 0.1 * decades))
    powers(axes.yaxis)


def powers(axis: Axis) -> None:
    """Ticks of a logarithmic axis as plain text: the library's own are formulas, which take most of a figure's time."""
    axis.set_major_formatter(FuncFormatter(_power))


def _power(value: float, _: object = None) -> str:
    if value == 0:
        return "0"
    exponent = np.floor(np.log10(abs(value)) + 1e-9)
    if -3 <= exponent <= 3:
        return f"{value:g}".replace("-", "−")
    factor = value / 10.0**exponent
    sign, size = "−" if factor < 0 else "", abs(round(float(factor), 3))
    mantissa = "" if size == 1 else f"{size:g}·"
    return f"{sign}{mantissa}10{str(int(exponent)).translate(_RAISED)}"


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def thin(step: Steps, value: Floats) -> tuple[Steps, Floats]:
    """Of a long line, the smallest and largest point of each bin, in order."""
    if len(value) <= 2 * BINS:
        return step, value
    parts = np.split(np.arange(len(value)), _bins(len(value))[1:])
    kept = np.unique([p[i] for p in parts for i in (value[p].argmin(), value[p].argmax(), -1)])
    return step[kept], value[kept]


def _bins(n: int) -> Steps:
    return np.linspace(0, n, BINS + 1).astype(np.int64)[:-1]


def _envelope(step: Steps, value: Floats) -> tuple[Floats, Floats, Floats]:
    starts = _bins(len(value))
    ends = np.append(starts[1:], len(value)) - 1
    middle = (step[starts] + step[ends]) / 2
    return middle, np.minimum.reduceat(value, starts), np.maximum.reduceat(value, starts)
