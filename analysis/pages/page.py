"""What every HTML page here shares: escaping, numbers for people, the style and the script that stand in the page."""

import math
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined


@cache
def environment() -> Environment:
    """Templates of this package, compiled once a process; whatever they are given is escaped."""
    made = Environment(
        loader=PackageLoader("analysis.pages", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["number"] = number
    made.filters["short"] = short
    made.filters["slug"] = lambda status: str(status).lower().replace(" ", "-")
    return made


def number(value: object, digits: int = 5) -> str:
    """Up to five digits; a dash where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.{digits}g}".replace("-", "−").replace("inf", "∞")
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def short(value: object) -> str:
    """Up to three digits, for tables that are read across."""
    return number(value, 3)
