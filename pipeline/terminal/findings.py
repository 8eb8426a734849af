"""What the doctor says: one line for each thing that was looked at."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]
_NAMED_MOST = 5


@dataclass(frozen=True)
class Finding:
    """One line: how bad it is, what was looked at, what was found, and what to do about it."""

    level: Level
    about: str
    says: str
    do: str = ""


def few(names: Iterable[str]) -> str:
    """The first names, and how many more."""
    known = list(names)
    more = f" and {len(known) - _NAMED_MOST} more" if len(known) > _NAMED_MOST else ""
    return ", ".join(known[:_NAMED_MOST]) + more
