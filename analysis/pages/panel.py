"""Panels that draw quickly: grid, labels and legend as a few drawings instead of hundreds of objects.

The plotting library makes seven objects for each tick and a tree of boxes for each legend, which takes longer than all
curves. Here an axis says where its ticks are and what they are called, as ever; one line is the grid, one the strokes,
and one text is moved from label to label.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis, YAxis
from matplotlib.backend_bases import RendererBase
from matplotlib.collections import Collection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.markers import TICKDOWN, TICKLEFT
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox, IdentityTransform

_PAD = 3.5  # points between an axis and the labels of its ticks
_POINTS = 72.0  # to an inch

_SAMPLE, _SPACE, _BETWEEN, _EDGE, _LINE = 2.0, 0.8, 1.2, 0.4, 1.45
"""Of a key, in its letters' size: width of a sample, room behind it, between columns, at the border; line to line."""


class _Quick(Axis):
    """An axis whose ticks are no objects."""

    axis_name: str
    major: Any
    look: dict[str, Any]  # what tick_params() was given
    grid_look: dict[str, Any] | None

    def get_tick_params(self, which: Any = "major") -> dict[str, Any]:
        """What :meth:`Panel.tick_params` was given."""
        return self.look

    def set_clip_path(self, path: Any, transform: Any = None) -> None:
        """Of the axis alone: there are no ticks that it would have to be told."""
        Artist.set_clip_path(self, path, transform)

    def _ticks(self) -> tuple[np.ndarray[Any, Any], list[str]]:
        """Places within the view, and their labels."""
        low, high = sorted(self.get_view_interval())
        places = np.asarray(self.get_majorticklocs(), np.float64)
        scaled, ends = self.get_transform().transform(places), self.get_transform().transform(np.array([low, high]))
        room = 1e-10 * abs(ends[1] - ends[0])
        shown = (scaled >= ends.min() - room) & (scaled <= ends.max() + room)
        labels = self.major.formatter.format_ticks(list(places))
        return places[shown], [label for label, kept in zip(labels, shown, strict=True) if kept]

    def draw(self, renderer: RendererBase) -> None:
        """Grid, strokes, labels, the axis's name, and what the labels are multiplied with."""
        if not self.get_visible():
            return
        across = self.axis_name == "x"
        places, labels = self._ticks()
        axes: Axes = self.axes
        along = axes.get_xaxis_transform() if across else axes.get_yaxis_transform()
        if self.grid_look is not None and len(places):
            on, over = np.repeat(places, 3), np.tile([0.0, 1.0, np.nan], len(places))
            self._drawn(Line2D(*((on, over) if across else (over, on)), transform=along, **self.grid_look), renderer)
        colour, length = self.look.get("color", "black"), self.look.get("length", _PAD)
        if length and len(places):
            edge = np.zeros(len(places))
            kind: Any = TICKDOWN if across else TICKLEFT
            at = (places, edge) if across else (edge, places)
            look: dict[str, Any] = {"linestyle": "", "marker": kind, "ms": length, "mew": 0.8, "color": colour}
            strokes = Line2D(*at, transform=along, **look)
            self._drawn(strokes, renderer)
        for word in self._words(renderer, places, labels):
            word.draw(renderer)
        self._update_label_position(renderer)  # type: ignore[attr-defined]
        self.label.draw(renderer)
        self._update_offset_text_position([], [])  # type: ignore[attr-defined]
        self.offsetText.set_text(self.major.formatter.get_offset())
        self.offsetText.draw(renderer)
        self.stale = False

    def get_tightbbox(self, renderer: Any = None, *, for_layout_only: bool = False) -> Any:
        """Around all words."""
        if not self.get_visible():
            return None
        renderer = renderer or self.axes.get_figure(root=True)._get_renderer()  # type: ignore[union-attr]
        words = chain(self._words(renderer, *self._ticks()), [self.label])
        boxes = [word.get_window_extent(renderer) for word in words if word.get_text()]
        return Bbox.union(boxes) if boxes else None

    def _words(self, renderer: Any, places: np.ndarray[Any, Any], labels: list[str]) -> Iterator[Text]:
        """The labels, each at its place: one text, moved on."""
        across = self.axis_name == "x"
        if not self.look.get("labelbottom" if across else "labelleft", True):
            return
        axes, edge = self.axes, np.zeros(len(places))
        along = axes.get_xaxis_transform() if across else axes.get_yaxis_transform()
        at = along.transform(np.column_stack((places, edge) if across else (edge, places)))
        pad = (_PAD + self.look.get("length", _PAD)) * renderer.points_to_pixels(1.0)
        align: dict[str, Any] = {"ha": "center", "va": "top"} if across else {"ha": "right", "va": "center_baseline"}
        word = Text(fontsize=self.look.get("labelsize", 10.0), color=self.look.get("labelcolor", "black"), **align)
        word.set_figure(axes.get_figure(root=False))  # type: ignore[arg-type]
        for (x, y), label in zip(at.tolist(), labels, strict=True):
            word.set_position((x, y - pad) if across else (x - pad, y))
            word.set_text(label)
            yield word

    def _drawn(self, artist: Artist, renderer: RendererBase) -> None:
        artist.set_figure(self.axes.get_figure(root=False))  # type: ignore[arg-type]
        artist.draw(renderer)


class _QuickX(_Quick, XAxis):
    """The axis of steps, as a rule."""


class _QuickY(_Quick, YAxis):
    """The axis of values."""


class Panel(Axes):
    """Axes with quick ticks; minor ticks are not drawn."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        for spine in self.spines.values():
            spine.get_position()  # where a spine stands is settled when it is asked for, as ticks do

    def _init_axis(self) -> None:
        self.xaxis, self.yaxis = _QuickX(self, clear=False), _QuickY(self, clear=False)
        for axis, sides in ((self.xaxis, ("bottom", "top")), (self.yaxis, ("left", "right"))):
            axis.look, axis.grid_look = {}, None
            for side in sides:
                self.spines[side].register_axis(axis)

    def tick_params(self, axis: Any = "both", **look: Any) -> None:
        """``colors``, ``labelsize``, ``length``, ``labelbottom`` and ``labelleft`` of one axis or both."""
        if "colors" in look:
            look["color"] = look["labelcolor"] = look.pop("colors")
        for each in self._chosen(axis):
            each.look.update(look)
        self.stale = True

    def grid(self, visible: Any = True, which: Any = "major", axis: Any = "both", **look: Any) -> None:
        """Lines across at the ticks."""
        for each in self._chosen(axis):
            each.grid_look = look if visible else None
        self.stale = True

    def _chosen(self, axis: str) -> Iterable[Any]:
        return [each for each in (self.xaxis, self.yaxis) if axis in ("both", each.axis_name)]


def divided(fig: Figure, rows: int = 1, columns: int = 1, **given: Any) -> Any:
    """Panels in rows and columns, as ``fig.subplots`` makes axes."""
    return fig.subplots(rows, columns, subplot_kw={"axes_class": Panel}, **given)


class Key(Artist):
    """What each line is: samples and words in columns, below a panel.

    Args:
        axes: its labelled lines and areas are explained.
        words: in their order.
        columns: so many side by side.
        size, colour: of the letters.
    """

    def __init__(self, axes: Axes, words: list[str], columns: int, size: float, colour: str) -> None:
        super().__init__()
        self.words, self.columns, self.below = words, columns, 0.0
        self._samples = axes.get_legend_handles_labels()[0]
        self._size, self._colour = size, colour
        self.set_zorder(5)

    @property
    def lines(self) -> int:
        """Of words, one below the other."""
        return -(-len(self.words) // self.columns)

    def draw(self, renderer: RendererBase) -> None:
        """Samples and words; columns are as wide as their widest word."""
        size = self._pixels(renderer)
        word = Text(fontsize=self._size, color=self._colour, va="center_baseline", parse_math=False)
        word.set_figure(self.axes.get_figure(root=False))  # type: ignore[union-attr, arg-type]
        for sample, text, x, y, _ in self._placed(renderer):
            self._sample(sample, renderer, x, y, size)
            word.set_position((x + (_SAMPLE + _SPACE) * size, y))
            word.set_text(text)
            word.draw(renderer)

    def get_window_extent(self, renderer: Any = None) -> Bbox:
        """Around all samples and words."""
        renderer = renderer or self.axes.get_figure(root=True)._get_renderer()  # type: ignore[union-attr]
        size, found = self._pixels(renderer), list(self._placed(renderer))
        left, lowest = min(x for _, _, x, _, _ in found), min(y for _, _, _, y, _ in found)
        top = max(y for _, _, _, y, _ in found)
        right = max(x + (_SAMPLE + _SPACE) * size + wide for _, _, x, _, wide in found)
        return Bbox.from_extents(left, lowest - 0.7 * size, right, top + 0.7 * size)

    def get_tightbbox(self, renderer: Any = None) -> Bbox:
        """As :meth:`get_window_extent`."""
        return self.get_window_extent(renderer)

    def _pixels(self, renderer: Any) -> float:
        return float(self._size * renderer.points_to_pixels(1.0))

    def _placed(self, renderer: Any) -> Iterator[tuple[Any, str, float, float, float]]:
        """Samples and words with the place of the sample's middle left, and the width of the word, in pixels."""
        size, box = self._pixels(renderer), self.axes.bbox  # type: ignore[union-attr]
        font = FontProperties(size=self._size)
        below = self.below * _POINTS * renderer.points_to_pixels(1.0)
        x, top = box.x0 + _EDGE * size, box.y0 - below - _EDGE * size
        for first in range(0, len(self.words), self.lines):
            column = range(first, min(first + self.lines, len(self.words)))
            wide = [renderer.get_text_width_height_descent(self.words[i], font, False)[0] for i in column]
            for i, width in zip(column, wide, strict=True):
                yield self._samples[i], self.words[i], x, top - (0.5 + _LINE * (i - first)) * size, width
            x += max(wide) + (_SAMPLE + _SPACE + _BETWEEN) * size

    def _sample(self, of: Any, renderer: RendererBase, x: float, y: float, size: float) -> None:
        drawn: Artist
        wide = _SAMPLE * size
        if isinstance(of, Line2D):
            alone = of.get_linestyle() in ("None", "", " ")
            drawn = Line2D([x + wide / 2] if alone else [x, x + wide], [y] if alone else [y, y])
            drawn.update_from(of)
        elif isinstance(of, Collection) and len(of.get_facecolor()):
            drawn = Rectangle((x, y - 0.35 * size), wide, 0.7 * size, facecolor=of.get_facecolor()[0], lw=0)
        else:
            drawn = Line2D([x, x + wide], [y, y], color=of.get_edgecolor()[0], lw=of.get_linewidth()[0])
        drawn.set_transform(IdentityTransform())
        drawn.set_clip_on(False)
        drawn.set_clip_path(None)
        drawn.set_figure(self.axes.get_figure(root=False))  # type: ignore[union-attr, arg-type]
        drawn.draw(renderer)


def key_of(axes: Axes) -> Key | None:
    """The key below ``axes``, if it has one."""
    return next((each for each in axes.artists if isinstance(each, Key)), None)
