"""Whether a trace begins where its training did: with the first update, which finds no momentum."""

import polars as pl

_ROUNDINGS = 64  # unit roundoffs of the vectors, in the square of a norm; the smallest momentum anybody has is far more

_c = pl.col


def begins(first: int | None, g_g: pl.Expr, unit: float) -> pl.Expr:
    """Whether a step is the trace's first, and its momentum after the update is the gradient that went into it alone.

    A run that was traced from a later update on, with the optimizer's buffers, has its first step, too, but more in the
    buffer. Of columns ``step``, ``m_m``, ``g_x``, ``x_x``, ``clip`` (minus the factor where the loss is maximised) and
    ``weight_decay``; false where one is null.

    Args:
        first: the first step of the trace.
        g_g: ‖g_t‖².
        unit: unit roundoff of the recorded vectors.
    """
    decay = _c("weight_decay")
    alone = _c("clip") ** 2 * g_g + 2 * _c("clip") * decay * _c("g_x") + decay**2 * _c("x_x")
    size = _c("clip") ** 2 * g_g + decay**2 * _c("x_x") + _c("m_m")
    return (_c("step") == pl.lit(first, pl.Int64)) & ((_c("m_m") - alone).abs() <= _ROUNDINGS * unit * size).fill_null(
        False
    )
