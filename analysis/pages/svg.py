"""A figure as a file: PNG, and SVG that is small, follows the page's ink and shares its letters with others."""

import io
import re

from matplotlib.figure import Figure

from analysis.pages.drawing import INK, RULE
from analysis.pages.svg_renderer import Renderer

_POINTS = 72  # to an inch


def to_png(fig: Figure, dpi: int = 150) -> bytes:
    """The figure as a PNG file."""
    out = io.BytesIO()
    fig.savefig(out, format="png", dpi=dpi, pil_kwargs={"compress_level": 6})
    return out.getvalue()


def to_svg(fig: Figure, glyphs: dict[str, str] | None = None) -> str:
    """The figure as an ``<svg>`` element that can stand in a page among others and follows the page's ink.

    The same figure gives the same text. The background is transparent; lines and letters take the custom properties
    ``--ink`` and ``--rule`` where the page sets them.

    Args:
        fig: the figure.
        glyphs: shared by all figures of a page: drawings of letters are put there, by id, and left out of the figure;
            the page shows them once, see :func:`glyph_sheet`.
    """
    width, height = fig.get_size_inches() * _POINTS
    name = re.sub(r"\W", "-", str(fig.get_label())) or "figure"
    renderer = Renderer(float(width), float(height), name)
    dpi, patch = fig.dpi, fig.patch.get_visible()
    fig.patch.set_visible(False)
    try:
        fig.dpi = _POINTS
        fig.draw(renderer)
    finally:
        fig.dpi = dpi
        fig.patch.set_visible(patch)
    text = renderer.svg().replace(INK, f"var(--ink, {INK})").replace(RULE, f"var(--rule, {RULE})")
    if glyphs is None:
        return _with_letters(text, "".join(renderer.letters.values()))
    glyphs |= renderer.letters
    return text


Drawing = tuple[str, dict[str, str]]
"""An SVG, and the letters it shares with others; empty where there is nothing to show."""


def drawing(fig: Figure) -> Drawing:
    """A figure as it can be kept for pages that show it alone or among others."""
    glyphs: dict[str, str] = {}
    return to_svg(fig, glyphs), glyphs


def standalone(drawn: Drawing) -> str:
    """A kept figure as an SVG file of its own, on white."""
    svg, glyphs = drawn
    used = dict.fromkeys(re.findall(r'href="#([^"]+)"', svg))
    letters = "".join(glyphs[name] for name in used if name in glyphs)
    return _with_letters(svg, letters).replace(">", ' style="background:white">', 1)


def _with_letters(svg: str, letters: str) -> str:
    head, body = svg.split(">", 1)
    return f"{head}><defs>{letters}</defs>{body}"


def glyph_sheet(glyphs: dict[str, str]) -> str:
    """The letters that the figures of a page share, as an element that shows nothing itself."""
    hidden = 'width="0" height="0" style="position:absolute" aria-hidden="true"'
    return f"<svg {hidden}><defs>{''.join(glyphs.values())}</defs></svg>"
