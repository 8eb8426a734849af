"""A command that needs more than the base install says what to install."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(command: str, name: str) -> Iterator[None]:
    """A package that is not installed becomes the command that installs it; a fault of ours stays what it is."""
    from tracer.errors import LemmataError

    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("", "pipeline", "analysis", "tracer"):
            raise
        raise LemmataError(
            f"lemmata {command} needs the {name} extra: pip install 'lemmata[{name}]' (no module named {error.name})"
        ) from None
