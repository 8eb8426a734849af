"""Replays: what a stored minibatch says at a reference point, put beside the pairs it belongs to."""

import polars as pl

from analysis.columns import GEOMETRY

KEYS = ("pairing", "step", "block")


def with_replay(geometry: pl.LazyFrame, replay: pl.LazyFrame, model: str) -> pl.LazyFrame:
    """The geometry with columns of ``replay`` where it has none of its own.

    Args:
        replay: ``pairing`` (text, ``"reference:last"``), ``step``, perhaps ``block`` (the model unless given), and any
            columns of the geometry, ``loss_y`` the first among them. Rows without a pair are left out.
        model: name of the block that stands for all parameters.
    """
    schema, given = geometry.collect_schema(), replay.collect_schema()
    columns = [name for name in given if name in GEOMETRY]
    block = pl.col("block").cast(pl.String) if "block" in given else pl.lit(model)
    keyed = replay.select(
        pl.col("pairing").cast(pl.String).cast(schema["pairing"], strict=False),
        pl.col("step").cast(schema["step"]),
        block.cast(schema["block"], strict=False).alias("block"),
        *(pl.col(name).cast(pl.Float64) for name in columns),
    )
    found = geometry.join(keyed, on=KEYS, how="left", suffix=" replayed", maintain_order="left", validate="m:1")
    filled = (pl.coalesce(name, f"{name} replayed").alias(name) for name in columns)
    return found.with_columns(filled).select(schema.names())
