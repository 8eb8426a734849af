from pathlib import Path

from tracer.store.describe import rewrite, tables

PAGE = Path(__file__).parents[1] / "docs" / "format.md"


def test_the_page_says_what_the_code_does():
    text = PAGE.read_text(encoding="utf-8")
    assert rewrite(text) == text, "run: python -m tracer.store.describe"


def test_the_page_would_notice_a_change():
    text = PAGE.read_text(encoding="utf-8")
    assert all(table in text for table in tables().values())
    assert rewrite(text.replace("| `present` |", "| `here` |")) == text
