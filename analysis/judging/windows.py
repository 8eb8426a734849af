"""What became of a metric in each window of a run: the whole run, every epoch, every hundred steps.

A ratio is summarised by its sums, never by a mean of ratios. Missing and undefined pairs are counted apart and are part
of no number.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from analysis.arrays import missing
from analysis.columns import LOSSES, value
from analysis.judging.grid import Grid
from analysis.judging.reductions import summaries, sums_of_pairs
from analysis.metric import Metric

STEPS = 100
"""Length of the shortest windows, counted from step 0."""

_Numbers = npt.NDArray[Any]


def windows(metric: Metric, given: Grid) -> pl.DataFrame:
    """One row per block and window of one pairing.

    ``window`` is its kind ("run", "epoch", "steps:100") and ``number`` which one: the epoch as recorded, the first step
    over 100, 0 for the run. Steps without an epoch are in no window of that kind. ``first_step`` and ``last_step`` are
    of its rows; ``pairs`` are those with a defined value, ``undefined`` NaN, ``missing`` null. ``mean``, ``total``,
    ``smallest``, ``median``, ``largest`` are of the defined values; null where there is none. A metric with ``ratio``
    has ``numerator`` and ``denominator``, summed over the pairs that have both, and their ``ratio``.

    Args:
        metric: whose values are summarised.
        given: the value as a column, what its ratio reads, and the epoch of each step.
    """
    cut = _stretches(given.steps)
    k, count = len(given.blocks), len(cut.number)
    counts, found = summaries(*given.array(value), cut.rows, cut.start, cut.end)
    with np.errstate(invalid="ignore"):
        mean = found[:, :, 0] / counts[:, :, 0]
    pairing = pl.Series([given.pairing]).new_from_index(0, k * count)
    columns: dict[str, Any] = {"pairing": pairing, "block": np.repeat(np.array(given.blocks, object), count)}
    columns |= {name: np.tile(of, k) for name, of in (("window", cut.kind), ("number", cut.number))}
    columns |= {name: np.tile(of, k) for name, of in (("first_step", cut.first_step), ("last_step", cut.last_step))}
    columns |= {name: counts[:, :, i].ravel() for i, name in enumerate(("pairs", "undefined", "missing"))}
    numbers = {"mean": mean, **{n: found[:, :, i] for i, n in enumerate(("total", "smallest", "median", "largest"))}}
    if metric.ratio is not None:
        above, below = (given.array(part)[0] for part in metric.ratio)
        over, under = sums_of_pairs(above, below, cut.rows, cut.start, cut.end)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = over / under
        numbers |= {"numerator": over, "denominator": under, "ratio": np.where(np.isfinite(ratio), ratio, np.nan)}
    columns |= {name: pl.Series(of.ravel(), nan_to_null=True) for name, of in numbers.items()}
    schema = dict.fromkeys(("pairing", "block", "window"), pl.String)
    return pl.DataFrame(columns, schema_overrides=schema)


def with_variants(metric: Metric, found: pl.DataFrame, model: pl.DataFrame) -> pl.DataFrame:
    """Windows of the model with each variant's summary under its name; null where it has no defined value.

    Args:
        metric: whose variants they are.
        found: as :func:`windows` gives them for the model.
        model: its rows, a column per variant.
    """
    cut = _stretches(model)
    number = pl.Series("window", np.repeat(np.arange(len(cut.number)), cut.end - cut.start))
    for variant in metric.variants:
        summary = value.mean() if variant.summary is None else variant.summary
        reads = dict.fromkeys(name for name in summary.meta.root_names() if name != "value")
        own = model.select(*reads, value=variant.name)[cut.rows].with_columns(number).filter(value.is_finite())
        numbers = own.group_by("window", maintain_order=True).agg(summary.cast(pl.Float64).alias(variant.name))
        every = np.full(len(cut.number), np.nan)
        every[numbers["window"].to_numpy()] = numbers[variant.name].fill_null(np.nan).to_numpy()
        found = found.with_columns(pl.Series(variant.name, every, nan_to_null=True))
    return found


def has_windows_of_blocks(metric: Metric) -> bool:
    """Whether a tensor's own windows mean something: its value does, and the ratio reads no loss."""
    return metric.has_blocks and not any(LOSSES & set(part.meta.root_names()) for part in metric.ratio or ())


class _Cut(NamedTuple):
    """Windows: a kind, a number and the steps of each; its rows are ``rows[start:end]``."""

    kind: _Numbers
    number: _Numbers
    first_step: _Numbers
    last_step: _Numbers
    start: _Numbers
    end: _Numbers
    rows: _Numbers


def _stretches(steps: pl.DataFrame) -> _Cut:
    """The windows of rows with ``step`` and ``epoch``; an epoch that was come back to is one window."""
    epoch, there = steps["epoch"], ~missing(steps["epoch"])
    if not there.all():  # as whole numbers: as floats, neighbours beyond 2⁵³ would be one epoch
        epoch = epoch.cast(pl.Int64).fill_null(0)
    epochs, step = (column.to_numpy().astype(np.int64) for column in (epoch, steps["step"]))
    return _cut(step.tobytes(), epochs.tobytes(), there.tobytes())


@lru_cache(maxsize=4)  # all reference points have the same steps, and most metrics of a run
def _cut(steps: bytes, epochs: bytes, there: bytes) -> _Cut:
    step, epoch, known = np.frombuffer(steps, np.int64), np.frombuffer(epochs, np.int64), np.frombuffer(there, np.bool_)
    kinds = {"run": np.zeros(len(step), np.int64), "epoch": epoch, f"steps:{STEPS}": step // STEPS}
    parts: list[_Cut] = []
    for kind, number in kinds.items():
        of_kind = np.flatnonzero(known) if kind == "epoch" else np.arange(len(step))
        rows = of_kind[np.argsort(number[of_kind], kind="stable")]
        start = np.flatnonzero(np.diff(number[rows], prepend=number[rows[:1]] - 1))
        end, before = np.append(start[1:], len(rows))[: len(start)], sum(len(part.rows) for part in parts)
        named = np.full(len(start), kind, object), number[rows][start]
        parts.append(_Cut(*named, step[rows][start], step[rows][end - 1], start + before, end + before, rows))
    return _Cut(*(np.concatenate(of) for of in zip(*parts, strict=True)))
