"""Writes a figure as SVG: small, with letters that figures share, and quicker than the plotting library's own way.

Coordinates have a tenth of a point for their precision. Points of one kind are one path. Letters are outlines, so that
a page looks the same everywhere and no word of a run becomes markup; each is drawn once for all figures of a page.
"""

import base64
import io
import re
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backend_bases import GraphicsContextBase, RendererBase
from matplotlib.colors import to_hex
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ft2font import LoadFlags
from matplotlib.path import Path
from matplotlib.textpath import text_to_path
from matplotlib.transforms import Affine2D, Transform
from PIL import Image

Letter = tuple[str, float, float, float]  # id, place, size
_COMMANDS = {
    int(Path.MOVETO): ("M", 1),
    int(Path.LINETO): ("L", 1),
    int(Path.CURVE3): ("Q", 2),
    int(Path.CURVE4): ("C", 3),
}
_KEPT = 4096  # words whose letters are remembered


class Renderer(RendererBase):
    """What the plotting library draws on.

    Args:
        width, height: of the figure in points.
        name: prefix of the figure's ids.
    """

    def __init__(self, width: float, height: float, name: str) -> None:
        super().__init__()
        self._size, self._name = (width, height), name
        self._clips: dict[tuple[float, ...], str] = {}
        self.parts: list[str] = []
        self.letters: dict[str, str] = {}

    def svg(self) -> str:
        """All that was drawn as one element, without the letters."""
        width, height = map(_tenth, self._size)
        clips = "".join(
            f'<clipPath id="{name}"><rect x="{_tenth(x)}" y="{_tenth(self._size[1] - y - h)}" width="{_tenth(w)}" '
            f'height="{_tenth(h)}"/></clipPath>'
            for (x, y, w, h), name in self._clips.items()
        )
        defs = f"<defs>{clips}</defs>" if clips else ""
        style = "<style>*{stroke-linejoin:round;stroke-linecap:butt}</style>"
        head = f'role="img" aria-label="{self._name}" width="{width}pt" height="{height}pt"'
        box = f'viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" version="1.1"'
        return f"<svg {head} {box}>{style}{defs}{''.join(self.parts)}</svg>"

    def draw_path(self, gc: GraphicsContextBase, path: Path, transform: Transform, rgbFace: Any = None) -> None:
        """One line or area; what lies outside of the figure is left out of a line."""
        clip = (0.0, 0.0, *self._size) if rgbFace is None else None
        simplify = path.should_simplify and rgbFace is None
        drawn = path.cleaned(transform + self._flip(), remove_nans=True, clip=clip, simplify=simplify, curves=True)
        self._add(_text(drawn), gc, _style(gc, rgbFace))

    def draw_markers(
        self,
        gc: GraphicsContextBase,
        marker_path: Path,
        marker_trans: Transform,
        path: Path,
        trans: Transform,
        rgbFace: Any = None,
    ) -> None:
        """All points of one kind as one path."""
        at = (trans + self._flip()).transform(path.vertices)
        at = at[np.isfinite(at).all(axis=1)]
        outline = marker_path.transformed(marker_trans + Affine2D().scale(1, -1))
        width, height = outline.get_extents().size
        curves = [] if outline.codes is None else np.asarray(outline.codes).tolist()
        round_ = curves.count(Path.CURVE4) >= 8 and abs(width - height) < 1e-6
        if round_ and rgbFace is not None and not gc.get_linewidth():
            dots = "".join(f"M{_tenth(x)} {_tenth(y)}h0" for x, y in at.tolist())
            stroke = f"fill:none;stroke:{to_hex(rgbFace)};stroke-width:{width:.3g};stroke-linecap:round"
            self._add(dots, gc, stroke + _opacity("stroke-opacity", rgbFace, gc))
        else:
            every = "".join(_text(outline.transformed(Affine2D().translate(x, y))) for x, y in at.tolist())
            self._add(every, gc, _style(gc, rgbFace))

    def draw_image(self, gc: GraphicsContextBase, x: float, y: float, im: Any, transform: Any = None) -> None:
        """A picture of pixels."""
        out = io.BytesIO()
        Image.fromarray(np.asarray(im)[::-1]).save(out, "png")
        height, width = im.shape[:2]
        text = base64.b64encode(out.getvalue()).decode()
        at = f'x="{_tenth(x)}" y="{_tenth(self._size[1] - y - height)}" width="{width}" height="{height}"'
        self.parts.append(f'<image {at} href="data:image/png;base64,{text}"/>')

    def draw_text(
        self,
        gc: GraphicsContextBase,
        x: float,
        y: float,
        s: str,
        prop: FontProperties,
        angle: float,
        ismath: Any = False,
        mtext: Any = None,
    ) -> None:
        """Words as outlines of their letters."""
        letters, drawings, bars = _layout(s, findfont(prop), ismath)
        self.letters |= drawings
        size = prop.get_size_in_points() / text_to_path.FONT_SCALE
        turned = f" rotate({-angle:g})" if angle else ""
        where = f"translate({_tenth(x)} {_tenth(y)}){turned} scale({size:.4g} {-size:.4g})"
        shapes = "".join(_use(*letter) for letter in letters) + bars
        fill = f"fill:{to_hex(gc.get_rgb())}" + _opacity("opacity", gc.get_rgb(), gc)
        self.parts.append(f'<g style="{fill}" transform="{where}">{shapes}</g>')

    def get_text_width_height_descent(self, s: str, prop: FontProperties, ismath: Any) -> tuple[float, float, float]:
        """How much room words take, in points."""
        width, height, descent = _extent(s, findfont(prop), ismath)
        size = prop.get_size_in_points() / text_to_path.FONT_SCALE
        return width * size, height * size, descent * size

    def get_canvas_width_height(self) -> tuple[float, float]:
        """In points."""
        return self._size

    def flipy(self) -> bool:
        """The first row is at the top."""
        return True

    def _flip(self) -> Affine2D:
        return Affine2D().scale(1, -1).translate(0, self._size[1])

    def _add(self, path: str, gc: GraphicsContextBase, style: str) -> None:
        if not path:
            return
        end = f'"{self._clip(gc)} style="{style}"/>'
        if self.parts and self.parts[-1].endswith(end) and "opacity" not in style and path[0] == "M":
            self.parts[-1] = f"{self.parts[-1].removesuffix(end)}{path}{end}"  # drawn alike: one path
        else:
            self.parts.append(f'<path d="{path}{end}')

    def _clip(self, gc: GraphicsContextBase) -> str:
        bounds = gc.get_clip_rectangle()
        if bounds is None:
            return ""
        name = self._clips.setdefault(tuple(bounds.bounds), f"{self._name}-{len(self._clips)}")
        return f' clip-path="url(#{name})"'


def _style(gc: GraphicsContextBase, face: Any) -> str:
    parts = ["fill:none" if face is None else f"fill:{to_hex(face)}{_opacity('fill-opacity', face, gc)}"]
    if gc.get_linewidth():
        parts.append(f"stroke:{to_hex(gc.get_rgb())}{_opacity('stroke-opacity', gc.get_rgb(), gc)}")
        parts.append(f"stroke-width:{gc.get_linewidth():.3g}")
        dashes: Any
        offset, dashes = gc.get_dashes()
        if dashes is not None:
            parts.append(f"stroke-dasharray:{','.join(f'{each:.3g}' for each in dashes)}")
            parts.append(f"stroke-dashoffset:{offset:.3g}")
        if gc.get_joinstyle() != "round":
            parts.append(f"stroke-linejoin:{gc.get_joinstyle()}")
        if gc.get_capstyle() != "butt":
            parts.append(f"stroke-linecap:{'square' if gc.get_capstyle() == 'projecting' else gc.get_capstyle()}")
    return ";".join(parts)


def _opacity(name: str, colour: Any, gc: GraphicsContextBase) -> str:
    alpha = gc.get_alpha() if gc.get_forced_alpha() else (colour[3] if len(colour) == 4 else 1.0)
    return "" if alpha is None or alpha == 1 else f";{name}:{alpha:.3g}"


def _text(path: Path) -> str:
    """A path as SVG says it; after an M every further pair of numbers is a line."""
    vertices: Any = path.vertices
    codes: Any = path.codes if path.codes is not None else _as_line(len(vertices))
    said: list[str] = []
    numbers = [f"{_tenth(x)} {_tenth(y)}" for x, y in vertices.tolist()]
    at, before = 0, ""
    kinds = codes.tolist()
    while at < len(kinds):
        kind = kinds[at]
        if kind == Path.STOP:
            break
        if kind == Path.CLOSEPOLY:
            said.append("z")
            at, before = at + 1, "z"
            continue
        command, points = _COMMANDS[kind]
        implied = (command == "L" and before in ("M", "L")) or command == before != "M"
        said.append((" " if implied else command) + " ".join(numbers[at : at + points]))
        at, before = at + points, command
    return "".join(said)


def _as_line(n: int) -> npt.NDArray[np.uint8]:
    codes = np.full(n, Path.LINETO, np.uint8)
    codes[:1] = Path.MOVETO
    return codes


def _use(name: str, x: float, y: float, size: float) -> str:
    if size != 1:
        return f'<use href="#{name}" transform="translate({x:.0f} {y:.0f}) scale({size:.3g})"/>'
    return f'<use href="#{name}"' + (f' x="{x:.0f}"' if x else "") + (f' y="{y:.0f}"' if y else "") + "/>"


@lru_cache(_KEPT)
def _layout(words: str, file: str, math: bool) -> tuple[tuple[Letter, ...], dict[str, str], str]:
    """Letters and their places, drawings of the letters by id, and the bars of a formula."""
    if math:
        prop = FontProperties(fname=file)
        placed, outlines, bars = text_to_path.get_glyphs_mathtext(prop, words)
    else:
        placed, outlines, bars = text_to_path.get_glyphs_with_font(_font(file), words)
    names = {found: "t" + re.sub(r"\W", "-", found.replace("DejaVuSans", "")) for found in outlines}
    drawings = {names[found]: _glyph(names[found], *outline) for found, outline in outlines.items()}
    lines = "".join(f'<path d="{_text(Path(vertices, codes))}"/>' for vertices, codes in bars)
    return tuple((names[found], float(x), float(y), float(size)) for found, x, y, size in placed), drawings, lines


def _glyph(name: str, vertices: Any, codes: Any) -> str:
    whole = Path(np.rint(np.asarray(vertices) * 64), codes)  # the font's own units are whole numbers
    return f'<path id="{name}" d="{_text(whole)}" transform="scale({1 / 64})"/>'


@lru_cache(_KEPT)
def _extent(words: str, file: str, math: bool) -> tuple[float, float, float]:
    """Width, height and descent at the size in which letters are drawn."""
    if math:
        prop = FontProperties(fname=file, size=text_to_path.FONT_SCALE)
        width, height, descent = text_to_path.get_text_width_height_descent(words, prop, math)
        return width, height, descent
    font = _font(file)
    font.set_text(words, 0.0, flags=LoadFlags.NO_HINTING)
    width, height = font.get_width_height()
    return width / 64, height / 64, font.get_descent() / 64


def _font(file: str) -> Any:
    font = get_font(file)
    font.set_size(text_to_path.FONT_SCALE, text_to_path.DPI)
    return font


def _tenth(number: float) -> str:
    text = f"{number:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text
