"""Sections of what the doctor looks at: the worst of one does not stop the others."""

from collections.abc import Callable, Iterable, Iterator

from pipeline.terminal.findings import Finding
from tracer.errors import LemmataError


def guarded(about: str, section: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of a section; what keeps it from going on is the last of them."""
    try:
        yield from section()
    except LemmataError as error:
        yield Finding("error", about, str(error))
    except OSError as error:
        yield Finding("error", about, str(error), "make it readable, and ask again: lemmata doctor")
