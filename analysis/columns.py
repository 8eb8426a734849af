"""The columns a formula may read: what each means, its unit, and what it says when it is missing.

A pair has two points ``x`` and ``y`` on one minibatch, ``d = x − y``, gradients ``gx`` and ``gy`` and ``dg = gx − gy``.
The column ``gx_d`` is the inner product ⟨gx, d⟩, ``dg_dg`` is ‖gx − gy‖², and so on.
"""

from dataclasses import dataclass

import polars as pl


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


_LOSS, _DISTANCE2, _SLOPE = Units(loss=1), Units(distance=2), Units(loss=1)
_GRADIENT2 = Units(loss=2, distance=-2)
_NO_LOSS = "no loss was recorded; hand the loss to the tracer"
_NO_PROBE = 'no look-back probe was recorded; record with probes=["look_back"]'
_NO_RATE = "the parameter groups do not share one learning rate, or none was recorded"

COLUMNS: dict[str, Column] = {
    "loss_x": Column("f(x), the loss at x (whole model only)", _LOSS, "geometry", _NO_LOSS),
    "loss_y": Column("f(y), the loss at y on the same minibatch (whole model only)", _LOSS, "geometry", _NO_PROBE),
    "d_d": Column("‖x − y‖²", _DISTANCE2, "geometry"),
    "gx_d": Column("⟨∇f(x), x − y⟩", _SLOPE, "geometry"),
    "gy_d": Column("⟨∇f(y), x − y⟩", _SLOPE, "geometry", _NO_PROBE),
    "dg_d": Column("⟨∇f(x) − ∇f(y), x − y⟩, from the difference vector", _SLOPE, "geometry", _NO_PROBE),
    "dg_dg": Column("‖∇f(x) − ∇f(y)‖², from the difference vector", _GRADIENT2, "geometry", _NO_PROBE),
    "gx_gx": Column("‖∇f(x)‖²", _GRADIENT2, "geometry"),
    "gy_gy": Column("‖∇f(y)‖²", _GRADIENT2, "geometry", _NO_PROBE),
    "gx_gy": Column("⟨∇f(x), ∇f(y)⟩", _GRADIENT2, "geometry", _NO_PROBE),
    "x_x": Column("‖x_t‖²", _DISTANCE2, "path"),
    "g_x": Column("⟨∇f(x_t), x_t⟩", _SLOPE, "path"),
    "x_d": Column("⟨x_t, x_t − x_{t−1}⟩", _DISTANCE2, "path"),
    "g_gprev": Column("⟨g_t, g_{t−1}⟩, on different minibatches", _GRADIENT2, "path"),
    "d_dprev": Column("⟨d_t, d_{t−1}⟩, of consecutive steps", _DISTANCE2, "path"),
    "lr": Column("learning rate of the step that leaves x_t", Units(loss=-1, distance=2), "steps", _NO_RATE),
    "lr_previous": Column("learning rate of the step that made x_t", Units(loss=-1, distance=2), "steps", _NO_RATE),
    "loss": Column("f(x_t), as the step recorded it", _LOSS, "steps", _NO_LOSS),
    "loss_previous": Column("f(x_{t−1}, z_t), as the look-back probe recorded it", _LOSS, "steps", _NO_PROBE),
    "clip_factor": Column("the factor clipping put on g_t (1: not clipped)", Units(), "steps"),
    "random_scale": Column("the random factor on the step that leaves x_t", Units(), "steps"),
    "u_loss": Column("unit roundoff of the recorded loss", Units(), "facts"),
    "u_vector": Column("unit roundoff of the recorded vectors", Units(), "facts"),
}
LOSSES = frozenset({"loss_x", "loss_y", "loss", "loss_previous"})
"""Columns that belong to the whole model: a formula that reads one is not applicable on a block."""

GEOMETRY = tuple(name for name, column in COLUMNS.items() if column.table == "geometry")
PATH = tuple(name for name, column in COLUMNS.items() if column.table == "path")

loss_x, loss_y = pl.col("loss_x"), pl.col("loss_y")
d_d, gx_d, gy_d, dg_d, dg_dg = pl.col("d_d"), pl.col("gx_d"), pl.col("gy_d"), pl.col("dg_d"), pl.col("dg_dg")
gx_gx, gy_gy, gx_gy = pl.col("gx_gx"), pl.col("gy_gy"), pl.col("gx_gy")
x_x, g_x, x_d, g_gprev, d_dprev = pl.col("x_x"), pl.col("g_x"), pl.col("x_d"), pl.col("g_gprev"), pl.col("d_dprev")
lr, lr_previous = pl.col("lr"), pl.col("lr_previous")
clip_factor, random_scale = pl.col("clip_factor"), pl.col("random_scale")
u_loss, u_vector = pl.col("u_loss"), pl.col("u_vector")
value = pl.col("value")
"""The metric's own value; only for series and claims."""
