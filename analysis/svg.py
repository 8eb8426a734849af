"""A figure as a file: PNG, and SVG that is small, follows the page's ink and shares its letters with others."""

import io
import re

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from analysis.drawing import INK, RULE, VALUE


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
    text = _drawn(fig)
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = _dots(text)
    text = re.sub(r'\bd="([^"]{40,})"', lambda m: f'd="{_short_path(m[1])}"', text)
    name = re.sub(r"\W", "-", str(fig.get_label())) or "figure"
    text = text.replace("xlink:href", "href")
    text = _shared(text, glyphs) if glyphs is not None else text
    text = _own_ids(text, name, frozenset(glyphs or ()))
    text = text.replace(INK, f"var(--ink, {INK})").replace(RULE, f"var(--rule, {RULE})")
    text = re.sub(r">\s+<", "><", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)


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
    head, body = svg.split(">", 1)
    return f'{head} style="background:white"><defs>{letters}</defs>{body}'


def glyph_sheet(glyphs: dict[str, str]) -> str:
    """The letters that the figures of a page share, as an element that shows nothing itself."""
    hidden = 'width="0" height="0" style="position:absolute" aria-hidden="true"'
    return f"<svg {hidden}><defs>{''.join(glyphs.values())}</defs></svg>"


def _drawn(fig: Figure) -> str:
    """What the library writes. Its ``savefig`` would draw everything twice, the first time for nothing."""
    out, dpi, patch = io.StringIO(), fig.dpi, fig.patch.get_visible()
    fig.patch.set_visible(False)
    try:
        FigureCanvasSVG(fig).print_svg(out, metadata={"Date": None})  # type: ignore[no-untyped-call]
    finally:
        fig.dpi = dpi
        fig.patch.set_visible(patch)
    return out.getvalue()


_GLYPH = re.compile(r'<path id="([A-Za-z]\w*-[0-9a-f]+)" (d="[^"]*" transform="scale\([\d.]+\)")/>')
_LETTER = re.compile(r'<use href="#([^"]+)"(?: transform="translate\(([-\d.]+) ([-\d.]+)\)")?/>')


def _shared(text: str, glyphs: dict[str, str]) -> str:
    """Letters leave the figure for the page's sheet; there they have short names."""
    short: dict[str, str] = {}
    for found, drawing in _GLYPH.findall(text):
        short[found] = "g-" + found.replace("DejaVuSans", "")
        glyphs.setdefault(short[found], f'<path id="{short[found]}" {drawing}/>')
    text = _GLYPH.sub("", text)

    def letter(match: re.Match[str]) -> str:
        if match[1] not in short:
            return match[0]  # a marker
        at = f' x="{float(match[2]):.0f}"' if match[2] else ""
        at += f' y="{float(match[3]):.0f}"' if match[3] and float(match[3]) else ""
        return f'<use href="#{short[match[1]]}"{at}/>'

    text = _LETTER.sub(letter, text)
    # what is left are letters of another size: exponents
    text = re.sub(r'href="#([^"]+)"', lambda m: f'href="#{short.get(m[1], m[1])}"', text)
    return re.sub(r"<defs>\s*</defs>", "", text)


def _own_ids(text: str, name: str, shared: frozenset[str]) -> str:
    referred = set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
    numbers: dict[str, str] = {}
    for found in re.findall(r'\bid="([^"]+)"', text):
        numbers.setdefault(found, f"{name}-{len(numbers)}")
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{numbers[m[1]]}"' if m[1] in referred else "", text)
    return re.sub(
        r'(url\(#|href="#)([^")]+)', lambda m: m[1] + (m[2] if m[2] in shared else numbers.get(m[2], m[2])), text
    )


_DOT = re.compile(r'<path id="([^"]+)" d="M 0 ([\d.]+)\s+C [^"]*z\s*"[^>]*/>')


def _dots(text: str) -> str:
    """Round markers as one path of points: a twentieth of the text."""
    for marker, radius in _DOT.findall(text):
        run = re.compile(
            rf'(?:<use xlink:href="#{re.escape(marker)}" x="[-\d.]+" y="[-\d.]+" style="fill: [^";]+"/>\s*){{2,}}'
        )

        def joined(match: re.Match[str], width: float = 2 * float(radius)) -> str:
            places = re.findall(r'x="([-\d.]+)" y="([-\d.]+)"', match[0])
            path = "".join(f"M{_tenth(x)} {_tenth(y)}h0" for x, y in places)
            colour = re.search(r'fill: ([^";]+)"', match[0])
            ink = colour[1] if colour else VALUE
            drawn = f"fill:none;stroke:{ink};stroke-width:{width:.3g};stroke-linecap:round"
            return f'<path d="{path}" style="{drawn}"/>'

        text = run.sub(joined, text)
    return text


def _short_path(path: str) -> str:
    """A long path with a tenth of a point for its precision, and no letter that can be left out."""
    if re.search(r"[^MLz\d\s.e-]", path):
        return path
    path = re.sub(r"-?\d+\.\d+(?:e-?\d+)?", lambda m: _tenth(m[0]), path)
    # after an M, every further pair of numbers is a line
    return re.sub(r"\s*([MLz])\s*", r"\1", path).replace("L", " ")


def _tenth(number: str) -> str:
    return f"{float(number):.1f}".removesuffix(".0")
