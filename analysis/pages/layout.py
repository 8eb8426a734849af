"""Where panels stand in a figure, from how many lines of words are above and below them, without measuring letters.

The plotting library's own layout draws a figure twice more to see how wide its letters are; that is half of the time a
figure takes. The figures here have a known shape: words above a panel, steps and a legend below it, a unit at its side.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import LayoutEngine

from analysis.pages.panel import key_of

# inches
TITLE = 0.34  # the figure's own title
LEFT, RIGHT, EDGE = 0.88, 0.16, 0.08  # room for the unit and the ticks' labels; what is left free at the borders
HEADING_LINE, LEGEND_LINE = 0.145, 0.165  # of words above; of a legend
TICKS, TICKS_AND_NAME = 0.22, 0.38  # labels of the steps; with the axis's name
NAME = 0.30  # how far below the axes the name of an axis stands
OFFSET = 0.13  # room above a panel without words


class Panels(LayoutEngine):
    """Rows and columns of panels with room for their words, legends and labels."""

    _adjust_compatible = False
    _colorbar_gridspec = False

    def execute(self, fig: Figure) -> None:
        """Give every panel of ``fig`` its place."""
        panels = [axes for axes in fig.axes if axes.get_subplotspec() is not None]
        if not panels:
            return
        width, height = fig.get_size_inches()
        grid = panels[0].get_subplotspec().get_gridspec()  # type: ignore[union-attr]
        rows: list[list[Axes]] = [[] for _ in range(grid.nrows)]
        for axes in panels:
            rows[axes.get_subplotspec().rowspan.start].append(axes)  # type: ignore[union-attr]
        above = [max((_above(axes) for axes in row), default=0.0) for row in rows]
        below = [max((_below(axes) for axes in row), default=0.0) for row in rows]
        top = TITLE if fig.get_suptitle() else EDGE
        free = max(0.1 * height, height - top - EDGE - sum(above) - sum(below))
        ratios = np.asarray(grid.get_height_ratios(), np.float64)
        heights = free * ratios / ratios.sum()
        across = (width - grid.ncols * (LEFT + RIGHT)) / grid.ncols
        at = height - top
        for row, tall, over, under in zip(rows, heights, above, below, strict=True):
            bottom = at - over - tall
            for axes in row:
                left = axes.get_subplotspec().colspan.start * (LEFT + across + RIGHT) + LEFT  # type: ignore[union-attr]
                axes.set_position((left / width, bottom / height, across / width, tall / height))
                _words(axes, across, tall)
            at = bottom - under


def _above(axes: Axes) -> float:
    title = axes.get_title(loc="left")
    return OFFSET + HEADING_LINE * (title.count("\n") + 1) if title else OFFSET


def _below(axes: Axes) -> float:
    labelled = axes.axison and axes.xaxis.get_tick_params().get("labelbottom", True)
    named = TICKS_AND_NAME if axes.get_xlabel() else TICKS
    return (named if labelled else EDGE) + _legend_height(axes)


def _legend_height(axes: Axes) -> float:
    key = key_of(axes)
    return 0.0 if key is None else 0.1 + LEGEND_LINE * key.lines


def _words(axes: Axes, across: float, tall: float) -> None:
    """The axis's names and the legend, where their letters meet nothing; fixed, or the library would look for room."""
    axes.yaxis.set_label_coords((EDGE + 0.09 - LEFT) / across, 0.5)
    axes.xaxis.set_label_coords(1.0, -NAME / tall)
    if (key := key_of(axes)) is not None:
        labelled = axes.axison and axes.xaxis.get_tick_params().get("labelbottom", True)
        key.below = TICKS if labelled or axes.get_xlabel() else EDGE
