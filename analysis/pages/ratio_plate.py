"""The paper's figure of the convexity ratio: every reference point, per epoch and so far, and the numerators alone."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.judging.battery import CONTROLS
from analysis.pages.drawing import (
    CONTROL_LINES,
    DASHED,
    INK,
    LINES,
    Floats,
    Steps,
    Style,
    canvas,
    defined,
    dress,
    heading,
    line,
    nothing,
    scale,
    steps_below,
    zero,
)
from analysis.pages.measured import WIDTH, Measured, filled, within
from analysis.pages.panel import divided
from analysis.tables import REFERENCE


def convexity_ratio(data: Measured) -> Figure:
    """Σ slopes over Σ loss differences for each reference, per epoch and so far; the numerators for all of them."""
    names = data.references("reference_slope") or data.references("convexity_ratio")
    fig = canvas("plate-convexity_ratio", "Convexity ratio  Σ ⟨∇f(x), x − x_r⟩ / Σ (f(x) − f(x_r))", (WIDTH, 6.9))
    grid = divided(fig, 2, 2)
    fig.delaxes(grid[1, 1])
    epochs, so_far, numerators = grid[0, 0], grid[0, 1], grid[1, 0]
    good = [name for name in names if name not in CONTROLS]
    colours = dict(zip([*good, *CONTROLS], [*(LINES * 3)[: len(good)], *CONTROL_LINES], strict=True))
    colours = {name: colours[name] for name in names}
    heading(epochs, [f"PER EPOCH, run {data.run_id}", "≥ 1: the identity of convex analyses; ≥ 0: quasar-convex"])
    heading(so_far, ["SO FAR", _replayed_at(data, names)])
    heading(numerators, ["NUMERATOR so far: needs no loss at the reference", "its sign alone says nothing of the loss"])
    _ratio_per_epoch(epochs, data, names, colours)
    _lines(so_far, data, "convexity_ratio", "cumulative_ratio", names, colours)
    _lines(numerators, data, "reference_slope", "cumulative", names, colours)
    for axes in (epochs, so_far):
        for bound in (0, 1) if axes.lines else ():
            axes.axhline(bound, color=INK, lw=0.9, ls=(0, (4, 3)))
        within(axes, -3, 6)
        dress(axes, "ratio")
    scale(numerators, np.concatenate([part.get_ydata() for part in numerators.lines] or [np.zeros(0)]))
    zero(numerators)
    dress(numerators, "loss")
    drawn = {part.get_label() for axes in (epochs, so_far, numerators) for part in axes.lines}
    _key(fig, {name: colour for name, colour in colours.items() if name in drawn})
    epochs.set_xlabel("epoch", color=INK, fontsize=9, loc="right")
    for axes in (so_far, numerators):
        steps_below(axes)
    return fig


def _ratio_per_epoch(axes: Axes, data: Measured, names: Iterable[str], colours: Mapping[str, str]) -> None:
    drawn = False
    for name in names:
        epoch, ratio = _per_epoch(data, REFERENCE + name)
        if len(epoch):
            drawn = True
            style: Style = DASHED if name in CONTROLS else "-"
            axes.plot(epoch, ratio, marker=".", ls=style, color=colours[name], lw=1.2, ms=5, label=name)
    if not drawn:
        nothing(axes, filled(_no_ratio(data)))


def _per_epoch(data: Measured, pairing: str) -> tuple[Steps, Floats]:
    """Of each epoch the sum of slopes over the sum of loss differences, where both are known and the sum is not 0."""
    slope, gap = data.rows("reference_slope", pairing), data.rows("reference_gap", pairing)
    if "epoch" not in data.steps.columns or not len(slope) or not len(gap):
        return np.zeros(0, np.int64), np.zeros(0)
    joined = slope.select("step", slope="value").join(gap.select("step", gap="value"), on="step")
    joined = joined.join(data.steps.select("step", "epoch"), on="step").drop_nulls()
    sums = (
        joined.filter(pl.col("gap").is_finite() & pl.col("slope").is_finite())
        .group_by("epoch")
        .agg(slope=pl.col("slope").sum(), above=(pl.col("slope") + pl.col("gap")).sum())
    )
    sums = sums.filter(pl.col("above") != 0).sort("epoch")
    return sums["epoch"].to_numpy(), (sums["slope"] / sums["above"]).to_numpy()


def _lines(
    axes: Axes, data: Measured, metric: str, column: str, names: Iterable[str], colours: Mapping[str, str]
) -> None:
    drawn = False
    for name in names:
        rows = data.rows(metric, REFERENCE + name)
        step, value = defined(rows, column) if column in rows.columns else (np.zeros(0, np.int64), np.zeros(0))
        if len(step):
            drawn = True
            line(axes, step, value, name, colours[name], DASHED if name in CONTROLS else "-", 1.5)
    if not drawn:
        missing = _no_ratio(data) if metric == "convexity_ratio" else "this run has no pairs with a reference point"
        nothing(axes, filled(missing))


def _replayed_at(data: Measured, names: Sequence[str]) -> str:
    """For which references there is a ratio, where not for all."""
    known = [name for name in names if len(defined(data.rows("reference_gap", REFERENCE + name), "value")[0])]
    return f"f(x_r, z_t) is known for {', '.join(known)}" if known and len(known) < len(names) else ""


def _no_ratio(data: Measured) -> str:
    if not data.references("reference_slope"):
        return "this run has no pairs with a reference point"
    return (
        "f(x_r, z_t), the loss at the reference points on each minibatch, is not known: it has to be replayed. "
        "The numerator below needs no loss"
    )


def _key(fig: Figure, colours: Mapping[str, str]) -> None:
    """Names of the references, in the room of the empty fourth panel."""
    for i, (name, colour) in enumerate(colours.items()):
        at = 0.42 - 0.035 * i
        style = "--" if name in CONTROLS else "-"
        words = f"{name}   (negative control)" if name in CONTROLS else name
        fig.add_artist(_stroke(0.60, 0.64, at, colour, style))
        fig.text(0.66, at, words, color=INK, fontsize=9, va="center", parse_math=False)


def _stroke(left: float, right: float, at: float, colour: str, style: str) -> Line2D:
    return Line2D([left, right], [at, at], color=colour, ls=style, lw=1.8)
