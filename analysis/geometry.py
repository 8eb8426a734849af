"""Trace to geometry: where vectors end and tables begin."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from analysis.kernel import PAIR, PATH, cuts, products
from analysis.tables import MODEL, PAIRINGS, Facts, Tables
from tracer.store import Chunk, Trace

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]

_OF_TWO_GRADIENTS = ("gy_d", "dg_d", "dg_dg", "gy_gy", "gx_gy")


def geometry(trace: Trace, progress: Progress | None = None) -> Tables:
    """Read the trace once and reduce every step to a few numbers per block.

    A pair joins steps t and t−1 of one attempt, never steps with a gap between them. The result does not depend on how
    the trace is cut into chunks. Values are float64; null is missing (no probe, no loss), NaN is undefined (the run
    diverged).

    Raises:
        FormatError: the trace is damaged; nothing is computed from a damaged file.
    """
    steps = pl.DataFrame(pl.from_arrow(trace.records()))
    sizes = [block.size for block in trace.blocks]
    pieces, blocks = cuts(sizes), len(sizes)
    before = _Before.nothing(trace.parameters, trace.manifest.dtype)
    parts: list[tuple[Array, ...]] = []
    attempt = 1
    for chunk in trace.chunks(progress=progress):
        if chunk.attempt != attempt:  # nobody vouches that a resumed training stood where the one before it ended
            attempt, before = chunk.attempt, _Before.nothing(trace.parameters, trace.manifest.dtype)
        for rows in _runs_of_consecutive(chunk):
            parts.append(_segment(chunk, rows, before, pieces, blocks))
            before = _Before.after(chunk, rows, before)
    at, pair, path, joined, probed = _stack(parts, blocks)
    facts = Facts.of(trace.manifest, trace.digest)
    block_type = pl.Enum([MODEL, *facts.blocks])
    losses = _losses(steps, at)
    if trace.manifest.unrecorded_parameters:  # the loss belongs to the whole model, the products to a part of it
        losses = {name: pl.Series(name, [None] * len(column), pl.Float64) for name, column in losses.items()}
    table = _geometry_table(at, pair, joined, probed, losses, block_type)
    return Tables(table.lazy(), _path_table(at, path, joined, block_type).lazy(), steps.lazy(), facts)


class _Before:
    """The rows just before the next one: points one and two steps back, the gradient one step back."""

    def __init__(self, x1: Array, x2: Array, g1: Array, step: int, length: int) -> None:
        self.x1, self.x2, self.g1 = x1, x2, g1
        self.step, self.length = step, length  # the last step, and how many consecutive ones ended there

    @classmethod
    def nothing(cls, parameters: int, dtype: str) -> "_Before":
        zero = np.zeros(parameters, dtype)
        return cls(zero, zero, zero, -2, 0)

    @classmethod
    def after(cls, chunk: Chunk, rows: slice, before: "_Before") -> "_Before":
        x, g = chunk.x[rows], chunk.streams["g"][rows]
        first = int(chunk.steps[rows.start])
        follows = before.step + 1 == first
        length = len(x) + (before.length if follows else 0)
        x2 = np.array(x[-2]) if len(x) > 1 else before.x1
        return cls(np.array(x[-1]), x2, np.array(g[-1]), int(chunk.steps[rows.stop - 1]), length)


def _runs_of_consecutive(chunk: Chunk) -> list[slice]:
    """Slices of the chunk's rows whose steps follow each other and hold a point and a gradient."""
    whole = np.flatnonzero(chunk.has["x"] & chunk.has.get("g", np.zeros(len(chunk.steps), bool)))
    if not len(whole):
        return []
    breaks = np.flatnonzero((np.diff(whole) != 1) | (np.diff(chunk.steps[whole]) != 1)) + 1
    return [slice(int(part[0]), int(part[-1]) + 1) for part in np.split(whole, breaks)]


def _segment(
    chunk: Chunk, rows: slice, before: _Before, pieces: npt.NDArray[np.int64], blocks: int
) -> tuple[Array, ...]:
    """Steps, products, products, steps back available (0, 1 or 2), look-back probe recorded."""
    at = chunk.steps[rows]
    x, g = chunk.x[rows], chunk.streams["g"][rows]
    probed = chunk.has["h"][rows] if "h" in chunk.has else np.zeros(len(at), bool)
    if probed.all():
        gy = chunk.streams["h"][rows]
    else:  # unpaired: the gradient of the step before, on another minibatch
        gy = np.concatenate([before.g1[None], g[:-1]])
        if probed.any():
            gy[probed] = chunk.streams["h"][rows][probed]
    pair, path = products(x, g, gy, (before.x1, before.x2, before.g1), pieces, blocks)
    back = np.arange(len(at)) + (before.length if before.step + 1 == at[0] else 0)
    return at, pair, path, np.minimum(back, 2), probed


def _stack(parts: list[tuple[Array, ...]], blocks: int) -> tuple[Array, ...]:
    if not parts:
        empty = np.empty(0, np.int64)
        return empty, np.empty((0, blocks + 1, len(PAIR))), np.empty((0, blocks + 1, len(PATH))), empty, empty > 0
    at, pair, path, back, probed = (np.concatenate(part) for part in zip(*parts, strict=True))
    # additive over coordinates: the model is the sum of its blocks
    return at, _with_model(pair), _with_model(path), back, probed


def _with_model(values: Array) -> Array:
    return np.concatenate([values.sum(axis=1, keepdims=True), values], axis=1)


def _losses(steps: pl.DataFrame, at: Array) -> dict[str, pl.Series]:
    """loss, loss_previous and the loss one step before, aligned with the steps ``at``."""
    found = pl.DataFrame({"step": at}).join(
        steps.select("step", "loss", "loss_previous", before=pl.col("loss").shift(1)),
        on="step",
        how="left",
        maintain_order="left",
    )
    return {name: found[name] for name in ("loss", "loss_previous", "before")}


def _geometry_table(
    at: Array, pair: Array, back: Array, probed: Array, losses: dict[str, pl.Series], block_type: pl.Enum
) -> pl.DataFrame:
    tables = []
    for pairing, chosen in (("previous", back > 0), ("unpaired", (back > 0) & ~probed)):
        other = losses["loss_previous" if pairing == "previous" else "before"]
        missing = np.repeat(~probed[chosen] if pairing == "previous" else np.zeros(chosen.sum(), bool), pair.shape[1])
        frame = _long(at[chosen], pair[chosen], PAIR, block_type).with_columns(
            _on_model(losses["loss"].filter(pl.Series(chosen)), block_type).alias("loss_x"),
            _on_model(other.filter(pl.Series(chosen)), block_type).alias("loss_y"),
            pl.lit(pairing, pl.Enum(PAIRINGS)).alias("pairing"),
        )
        gone = pl.lit(pl.Series(missing))
        tables.append(frame.with_columns(pl.when(~gone).then(pl.col(c)).alias(c) for c in _OF_TWO_GRADIENTS))
    return pl.concat(tables).select("pairing", "step", "block", "loss_x", "loss_y", *PAIR)


def _path_table(at: Array, path: Array, back: Array, block_type: pl.Enum) -> pl.DataFrame:
    steps_back = pl.lit(pl.Series(np.repeat(back, path.shape[1])))
    needs = {"x_d": 1, "g_gprev": 1, "d_dprev": 2}
    return _long(at, path, PATH, block_type).with_columns(
        pl.when(steps_back >= need).then(pl.col(name)).alias(name) for name, need in needs.items()
    )


def _long(at: Array, values: Array, names: tuple[str, ...], block_type: pl.Enum) -> pl.DataFrame:
    """One row per step and block, the model first."""
    categories = block_type.categories
    flat = values.reshape(-1, len(names))
    return pl.DataFrame(
        {
            "step": np.repeat(at, len(categories)),
            "block": pl.Series(np.tile(np.arange(len(categories), dtype=np.uint32), len(at))).cast(pl.UInt32),
            **{name: np.ascontiguousarray(flat[:, i]) for i, name in enumerate(names)},
        }
    ).with_columns(pl.col("block").replace_strict(dict(enumerate(categories)), return_dtype=block_type))


def _on_model(losses: pl.Series, block_type: pl.Enum) -> pl.Series:
    """The loss belongs to the whole model and stands on that row alone."""
    width = len(block_type.categories)
    spread = np.full(len(losses) * width, np.nan)
    spread[::width] = losses.fill_null(np.nan).to_numpy()
    there = np.zeros(len(spread), bool)
    there[::width] = losses.is_not_null().to_numpy()
    frame = pl.DataFrame({"value": spread, "there": there})
    return frame.select(pl.when("there").then("value")).to_series()
