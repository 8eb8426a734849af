"""Figures of what was replayed: smoothness against sharpness, two ways to take a reference loss, losses along steps.

As :mod:`analysis.pages.plates`: functions from what was measured to a figure, and words where something is missing.
"""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from analysis.pages.drawing import (
    AVERAGE,
    DASHED,
    EXTREME,
    INK,
    LIMIT,
    OTHER,
    RULE,
    VALUE,
    VIOLATION,
    Floats,
    Steps,
    canvas,
    defined,
    dress,
    heading,
    legend,
    line,
    nothing,
    points,
    powers,
    scale,
    steps_below,
    zero,
)
from analysis.pages.measured import Measured, filled, within, wrapped
from analysis.pages.panel import divided
from analysis.tables import REFERENCE

_WIDTH, _HALF = 9.6, 4.1  # inches of a plate, of one of two panels beside each other
_SHOWN, _ACROSS = 12, 4  # steps whose profiles are drawn
_LAST = REFERENCE + "last"


def smoothness_against_sharpness(data: Measured) -> Figure:
    """Section 4.1: local smoothness of each step beside Hessian sharpness, 2/lr and the limit of stability."""
    title = f"Local smoothness against sharpness      run {data.run_id}"
    fig = canvas("plate-smoothness_against_sharpness", title, (_WIDTH, 4.6))
    left, right = divided(fig, 1, 2, width_ratios=[3, 2])
    heading(left, ["ALONG THE RUN", *wrapped(data.said("sharpness", "previous"), 80)])
    _along(left, data)
    if _has(data, "adam_sharpness"):
        _in_adams_metric(right, data)
    else:
        _step_by_step(right, data)
    return fig


def frozen_reference(data: Measured) -> Figure:
    """Section 3.2: the ratio to the last point with its loss re-evaluated on each minibatch, and with one frozen."""
    title = f"Convexity ratio to the last point, reference loss re-evaluated and frozen      run {data.run_id}"
    fig = canvas("plate-frozen_reference", title, (_WIDTH, 4.6))
    left, right = divided(fig, 1, 2)
    rows = data.rows("convexity_ratio", _LAST)
    heading(
        left,
        [
            "Σ ⟨∇f(x), x − x_T⟩ / Σ (f(x) − f(x_T)), SO FAR",
            "≥ 1: the identity of convex analyses. Noise made",
            "x_T with these gradients: re-evaluated, it is in both",
            "sums and pulls towards 1; frozen, it inflates (R5)",
        ],
    )
    heading(right, ["NUMERATOR AND BOTH DENOMINATORS", *wrapped(data.said("convexity_ratio", _LAST), 56)])
    if "cumulative_ratio" not in rows.columns or not len(defined(rows, "cumulative_ratio")[0]):
        for axes in (left, right):
            nothing(axes, filled(data.why_not("convexity_ratio", _LAST)))
        return fig
    again, frozen = defined(rows, "cumulative_ratio"), defined(rows, "frozen_ratio")
    line(left, *again, "f(x_T, z_t), re-evaluated on each z_t", AVERAGE, width=1.9)
    line(left, *frozen, "f(x_T), one frozen number", VIOLATION, "--", 1.6)
    for bound in (0, 1):
        left.axhline(bound, color=INK, lw=0.9, ls=(0, (4, 3)))
    within(left, -3, max(6.0, 1.3 * float(frozen[1][-1] if len(frozen[1]) else 0)))
    step, slopes = defined(data.rows("reference_slope", _LAST), "cumulative")
    line(right, step, slopes, "Σ ⟨∇f(x), x − x_T⟩, the numerator", INK, width=1.9)
    for (at, ratio), label, colour, style in (
        (again, "Σ (f(x, z_t) − f(x_T, z_t)), re-evaluated", AVERAGE, "-"),
        (frozen, "Σ (f(x, z_t) − f(x_T)), frozen", VIOLATION, "--"),
    ):
        both, of_slope, of_ratio = np.intersect1d(step, at, return_indices=True)
        kept = ratio[of_ratio] != 0
        line(right, both[kept], slopes[of_slope][kept] / ratio[of_ratio][kept], label, colour, style)
    zero(right)
    _finish((left, "ratio"), (right, "loss"))
    return fig


def loss_profiles(data: Measured) -> Figure:
    """Small multiples: the loss along single steps, its chord, and where it lies above."""
    title = f"Loss along steps, s = 0 to 1; dashed the chord, red: above it      run {data.run_id}"
    fig = canvas("plate-loss_profiles", title, (_WIDTH, 6.6))
    steps = chosen_steps(data)
    if not steps:
        nothing(divided(fig), filled(data.why_not("midpoint_defect", "previous")))
        return fig
    assert data.profile is not None
    profile = data.profile.filter(pl.col("step").is_in(steps), pl.col("loss").is_finite())
    profile = profile.unique(["step", "s"]).sort("step", "s")  # ½ is a place of the grid and of some quadratures
    down = -(-len(steps) // _ACROSS)
    fig.set_size_inches(_WIDTH, 1.0 + 1.85 * down)
    grid = divided(fig, down, _ACROSS, sharex=True, squeeze=False)
    for axes in grid.flat[len(steps) :]:
        axes.set_axis_off()
    above = data.rows("midpoint_defect", "previous").filter(pl.col("largest_inside") > pl.col("tolerance"))
    for axes, step in zip(grid.flat, steps, strict=False):
        _profile(axes, profile.filter(step=step), step, step in above["step"])
    for axes in grid[:, 0]:
        axes.set_ylabel("loss", color=INK, fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel("s", color=INK, fontsize=9)
    return fig


def chosen_steps(data: Measured) -> list[int]:
    """Steps whose profiles are drawn: spread over those that were replayed, the one with the largest defect among."""
    if data.profile is None or not len(data.profile):
        return []
    there = data.profile["step"].unique().sort().to_list()
    spread = {there[i] for i in np.linspace(0, len(there) - 1, _SHOWN).astype(int)}
    step, defect = defined(data.rows("midpoint_defect", "previous"), "value")
    worst = int(step[defect.argmax()]) if len(step) else there[0]
    if worst in there and worst not in spread:
        spread.remove(min(spread, key=lambda other: abs(other - worst)))
        spread.add(worst)
    return sorted(spread)


def _along(axes: Axes, data: Measured) -> None:
    rows = data.rows("smoothness", "previous")
    sharp, critical = data.rows("sharpness", "previous"), data.rows("critical_sharpness", "previous")
    drawn = [defined(rows, "value")]
    if len(drawn[0][0]):
        points(axes, *drawn[0], "smoothness, each step", VALUE)
        line(axes, *defined(rows, "exponential_mean"), "its exponential mean, 0.99", AVERAGE, width=1.9)
    for column, label, colour in (("value", "sharpness of F", EXTREME), ("of_minibatches", "sharpness of z_t", OTHER)):
        found = defined(sharp, column) if column in sharp.columns else _NONE
        if len(found[0]):
            line(axes, *found, label, colour, "-", 1.5)
            drawn.append(found)
    drawn.append(defined(critical, "value"))
    if not any(len(step) for step, _ in drawn):
        nothing(axes, filled(data.why_not("sharpness", "previous")))
        return
    if "lr" in data.steps.columns:
        rate = data.steps.filter(pl.col("lr") > 0).with_columns(limit=2 / pl.col("lr"))
        line(axes, *defined(rate, "limit"), "2 / lr", LIMIT, "--")
    limit = defined(sharp, "stability_limit") if "stability_limit" in sharp.columns else _NONE
    if len(limit[0]) and "lr" in data.steps.columns and not np.allclose(limit[1], _two_over_lr(data, limit[0])):
        line(axes, *limit, "limit with momentum", INK, "--", 1.2)
    if len(drawn[-1][0]):
        line(axes, *drawn[-1], "critical sharpness of F", "#5b6fd6", DASHED, 1.1)
    values = np.concatenate([value for _, value in drawn])
    if len(values) and (values > 0).all():
        axes.set_yscale("log")
        powers(axes.yaxis)
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        scale(axes, values)
    dress(axes, "loss / distance²")
    steps_below(axes)
    legend(axes, _HALF)


_NONE: tuple[Steps, Floats] = (np.zeros(0, np.int64), np.zeros(0))


def _two_over_lr(data: Measured, steps: Steps) -> Floats:
    rates = dict(data.steps.select("step", "lr").iter_rows())
    return np.array([2 / rates[step] if rates.get(step) else np.nan for step in steps.tolist()])


def _step_by_step(axes: Axes, data: Measured) -> None:
    """One against the other at the steps that have both, on one minibatch."""
    heading(axes, ["STEP BY STEP, both on z_t", *wrapped(data.said("smoothness_to_sharpness", "previous"), 56)])
    ratio = data.rows("smoothness_to_sharpness", "previous")
    step, value = defined(data.rows("smoothness", "previous"), "value")
    both, at_ratio, at_value = np.intersect1d(defined(ratio, "value")[0], step, return_indices=True)
    if not len(both):
        nothing(axes, filled(data.why_not("smoothness_to_sharpness", "previous")))
        return
    smooth = value[at_value]
    sharp = smooth / defined(ratio, "value")[1][at_ratio]
    kept = (sharp > 0) & (smooth > 0)
    if not kept.any():
        nothing(axes, "at no step are both above 0")
        return
    axes.plot(sharp[kept], smooth[kept], ".", ms=5, color=VALUE, mew=0, label="a step")
    ends = np.array([min(sharp[kept].min(), smooth[kept].min()), max(sharp[kept].max(), smooth[kept].max())])
    axes.plot(ends, ends, color=INK, lw=1, ls=(0, (4, 3)), label="equal: the step points along the sharpest way")
    for axis, set_scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        if ends[1] > 10 * ends[0]:
            set_scale("log")
            powers(axis)
            axis.set_minor_formatter(NullFormatter())
    dress(axes, "local smoothness")
    axes.set_xlabel("sharpness of zₜ", color=INK, fontsize=9, loc="right")
    legend(axes, 3.2)


def _in_adams_metric(axes: Axes, data: Measured) -> None:
    heading(axes, ["IN ADAM'S METRIC", *wrapped(data.said("adam_sharpness", "previous"), 56)])
    rows = data.rows("adam_sharpness", "previous")
    line(axes, *defined(rows, "value"), "λ_max(D^-½ H D^-½) of F", EXTREME)
    line(axes, *defined(rows, "stability_limit"), "2(1+β₁)/((1−β₁) lr)", LIMIT, "--")
    scale(axes, np.concatenate([defined(rows, name)[1] for name in ("value", "stability_limit")]))
    dress(axes, "1 / distance")
    steps_below(axes)
    legend(axes, 3.2)


def _profile(axes: Axes, rows: pl.DataFrame, step: int, above: bool) -> None:
    from scipy.interpolate import CubicHermiteSpline  # here: scipy loads longer than all pages of the UI

    s, loss, slope = (rows[name].to_numpy() for name in ("s", "loss", "slope"))
    if not {0.0, 1.0} <= set(s.tolist()):
        nothing(axes, f"step {step}: undefined")
        return
    start, end = loss[s == 0.0][0], loss[s == 1.0][0]
    colour = VIOLATION if above else AVERAGE
    fine = np.linspace(s.min(), s.max(), 120)
    whole = np.isfinite(slope).all() and len(s) > 1
    axes.axvspan(0, 1, color=RULE, alpha=0.35, lw=0)
    curve = CubicHermiteSpline(s, loss, slope)(fine) if whole else np.interp(fine, s, loss)
    axes.plot(fine, curve, color=colour, lw=1.4)
    axes.plot(s, loss, ".", color=colour, ms=7, mew=0)
    axes.plot([0, 1], [start, end], color=INK, lw=1, ls=(0, (3, 2)))
    dress(axes, "")
    axes.tick_params(labelsize=7.5)
    heading(axes, [f"step {step}"])


def _has(data: Measured, metric: str) -> bool:
    return len(defined(data.rows(metric, "previous"), "value")[0]) > 0


def _finish(*panels: tuple[Axes, str]) -> None:
    for axes, unit in panels:
        dress(axes, unit)
        steps_below(axes)
        legend(axes, _HALF)
