"""What our renderer writes: points of one kind as one path, every letter once, nothing of a run as markup."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis.pages.svg import drawing, standalone, to_svg


@pytest.fixture
def fig() -> Figure:
    """Points, crosses, a dashed line, an area, words."""
    made = Figure(figsize=(4, 3))
    made.set_label("a figure")
    axes = made.subplots()
    axes.plot(range(50), np.arange(50.0), ".", mew=0, label="points")
    axes.plot(range(5), range(5), "x", label="crosses")
    axes.plot(range(50), np.full(50, 3.0), linestyle=(0, (3, 1)), label="a line")
    axes.fill_between([0, 10], [0, 0], [1, 1], alpha=0.5)
    axes.set_title("<script>alert(1)</script> & $x^2$", parse_math=False)
    axes.set_ylabel("loss")
    axes.legend()
    return made


def test_it_is_sound_xml_with_every_letter_defined_once(fig: Figure) -> None:
    text = standalone(drawing(fig))
    root = ElementTree.fromstring(text)
    ids = [each.get("id") for each in root.iter() if each.get("id")]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= set(ids)


def test_no_word_becomes_markup(fig: Figure) -> None:
    assert "script" not in to_svg(fig)


def test_points_of_one_kind_are_one_path(fig: Figure) -> None:
    dots = [path for path in re.findall(r' d="([^"]*)"', to_svg(fig, {})) if path.count("h0") == 50]
    assert len(dots) == 1


def test_points_that_are_not_numbers_are_left_out() -> None:
    fig = Figure(figsize=(2, 2))
    axes = fig.subplots()
    axes.plot([0, 1, 2, 3], [1.0, np.nan, np.inf, 2.0], ".", mew=0)
    text = to_svg(fig, {})
    assert text.count("h0") == 2
    assert "nan" not in text.lower()


def test_a_formula_is_drawn() -> None:
    fig = Figure(figsize=(2, 2))
    fig.suptitle(r"$\frac{a}{b^2}$")
    assert to_svg(fig, {}).count("<use") >= 3


def test_a_figure_is_as_before_afterwards(fig: Figure) -> None:
    dpi = fig.dpi
    assert to_svg(fig) == to_svg(fig)
    assert fig.dpi == dpi
    assert fig.patch.get_visible()
