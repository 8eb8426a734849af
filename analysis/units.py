"""Units of numbers, and what is known of a column."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Units:
    """The unit of a number as exponents: ``Units(loss=1, distance=-2)`` is loss per squared distance (a curvature).

    Example:
        >>> str(Units(loss=1, distance=-2)), str(Units())
        ('loss / distance²', 'pure number')
    """

    loss: float = 0
    distance: float = 0

    def factor(self, loss: float, distance: float) -> float:
        """By how much a number of this unit grows when losses grow by ``loss`` and distances by ``distance``."""
        return float(loss**self.loss * distance**self.distance)

    def __str__(self) -> str:
        named = (("loss", self.loss), ("distance", self.distance))
        above = " · ".join(name + _power(power) for name, power in named if power > 0)
        below = " · ".join(name + _power(-power) for name, power in named if power < 0)
        if below:
            return f"{above or '1'} / {below}"
        return above or "pure number"


def _power(power: float) -> str:
    named: dict[float, str] = {1: "", 2: "²", 3: "³"}
    return named.get(power, f"^{power:g}")


@dataclass(frozen=True)
class Column:
    """What a column means, its unit, the table it stands in, and in words why it may be missing."""

    meaning: str
    units: Units
    table: str
    absent: str = "it is missing at every step"
