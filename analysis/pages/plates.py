"""The paper's figures for one run, at print quality: gap, ratio, smoothness, update correlation, random scaling.

Each is a function from what was measured to a figure. What a run lacks (a probe, a random scale, losses at a reference
point) is said in the place where it would be drawn.
"""

from collections.abc import Callable, Mapping

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.pages.drawing import (
    AVERAGE,
    EXTREME,
    INK,
    LIMIT,
    OTHER,
    VIOLATION,
    defined,
    heading,
    line,
    nothing,
    points,
    scale,
    zero,
)
from analysis.pages.measured import Measured, beside, filled, finish, wrapped
from analysis.pages.ratio_plate import convexity_ratio

_FRESH = "FRESH: from x_{t−1} to x_t, on z_t"
_IN_SAMPLE = "IN-SAMPLE: from x_t to x_{t+1}, on z_t"


def convexity_gap(data: Measured) -> Figure:
    """Gap of each step with its running and exponential mean, on fresh minibatches and in-sample."""
    fig, panels = beside(data, "convexity_gap", "Convexity gap  f(x) − f(y) − ⟨∇f(x), x − y⟩  (≤ 0 if convex)")
    values = []
    for axes, pairing, says in zip(panels, ("previous", "next"), (_FRESH, _IN_SAMPLE), strict=True):
        rows = data.rows("convexity_gap", pairing)
        heading(axes, [says, *wrapped(data.said("convexity_gap", pairing))])
        if _drawn(axes, data, "convexity_gap", pairing, rows):
            axes.axhline(0, color=INK, lw=1, ls=(0, (4, 3)))
            line(axes, *defined(rows, "running_mean"), "average so far", AVERAGE, width=1.9)
            line(axes, *defined(rows, "exponential_mean"), "exponential mean, 0.99", OTHER, width=1.2)
            values.append(defined(rows, "value")[1])
    finish(panels, "loss", np.concatenate(values) if values else None)
    return fig


def smoothness(data: Measured) -> Figure:
    """Local smoothness with its maximum, exponential mean and 2/lr; beside it what unpaired minibatches pretend."""
    fig, panels = beside(data, "smoothness", "Local smoothness  ‖∇f(x) − ∇f(y)‖ / ‖x − y‖")
    values = []
    says = _FRESH, "UNPAIRED: x_t on z_t, x_{t−1} on z_{t−1}. Mostly noise"
    for axes, pairing, words in zip(panels, ("previous", "unpaired"), says, strict=True):
        rows = data.rows("smoothness", pairing)
        heading(axes, [words, *wrapped(data.said("smoothness", pairing) if pairing == "previous" else "never judged")])
        if not _drawn(axes, data, "smoothness", pairing, rows):
            continue
        step, limit = defined(rows, "two_over_lr")
        values += [defined(rows, "value")[1], limit]
        if pairing == "previous":
            line(axes, *defined(rows, "running_max"), "largest so far", EXTREME)
            line(axes, *defined(rows, "exponential_mean"), "exponential mean, 0.99", AVERAGE, width=1.9)
            line(axes, step, limit, "2 / lr", LIMIT, "--")
        else:
            momentum = _momentum(data.steps)
            label = f"√(2(1−β²)) / lr, β = {momentum:g}: noise alone" if momentum else "√2 / lr: noise alone"
            line(axes, step, limit * np.sqrt((1 - momentum**2) / 2), label, VIOLATION, "--")
    together = np.concatenate(values) if values else None
    finish(panels, "loss / distance²", together)
    return fig


def update_correlation(data: Measured) -> Figure:
    """Update correlation of each step, and its sum beside the sum of loss changes and of promised descent."""
    title = "Update correlation  ⟨∇f(x_t, z_t), x_t − x_{t−1}⟩"
    fig, (left, right) = beside(data, "update_correlation", title)
    rows = data.rows("update_correlation", "previous")
    heading(left, [_FRESH, *wrapped(data.said("update_correlation", "previous"))])
    if _drawn(left, data, "update_correlation", "previous", rows):
        left.axhline(0, color=INK, lw=1, ls=(0, (4, 3)))
        line(left, *defined(rows, "running_mean"), "average so far", AVERAGE, width=1.9)
        line(left, *defined(rows, "exponential_mean"), "exponential mean, 0.99", OTHER, width=1.2)
        scale(left, defined(rows, "value")[1])
    sums = data.rows("loss_change", "previous")
    triple = (
        ("cumulative_update_correlation", "Σ ⟨∇f(x), x − y⟩, the update correlation", AVERAGE),
        ("cumulative", "Σ f(x) − f(y), the loss change", INK),
        ("cumulative_descent_term", "Σ ⟨∇f(y), x − y⟩, the promised descent", OTHER),
    )
    heading(right, ["SUMS", "if convex, the loss change lies between the two others"])
    known = [(defined(sums, name), label, colour) for name, label, colour in triple if name in sums.columns]
    if not any(len(step) for (step, _), _, _ in known):
        nothing(right, filled(data.why_not("loss_change", "previous")))
    for (step, value), label, colour in known:
        if len(step):
            line(right, step, value, label, colour, width=1.8)
    zero(right)
    finish((left, right), "loss", None)
    return fig


def random_scaling(data: Measured) -> Figure:
    """Cumulative loss change against what the gradients at the new points say of it, with and without scaling."""
    title = "Random scaling: loss change against its estimate from gradients at the new point"
    fig, (left, right) = beside(data, "random_scaling", title)
    change = data.rows("loss_change", "previous")
    scaled = data.rows("random_scaling", "previous")
    heading(
        left,
        ["WITHOUT the random factor", "slope and loss change agree only where the loss is a line"],
    )
    _against(left, data, "loss_change", change, "cumulative", "cumulative_update_correlation", "Σ ⟨∇f(x), x − y⟩")
    names = "cumulative_loss_change", "cumulative_slope", "Σ ⟨∇f(x), (x − y)/s⟩"
    heading(
        right, ["WITH it: an identity on average for s ~ Exp(1)", *wrapped(data.said("random_scaling", "previous"))]
    )
    _against(right, data, "random_scaling", scaled, *names)
    finish((left, right), "loss", None)
    return fig


PLATES: Mapping[str, Callable[[Measured], Figure]] = {
    plate.__name__: plate for plate in (convexity_gap, convexity_ratio, smoothness, update_correlation, random_scaling)
}
"""The plates by the name of the metric on whose page they stand."""


NEEDS: Mapping[str, tuple[str, ...]] = {
    "convexity_gap": ("convexity_gap",),
    "convexity_ratio": ("convexity_ratio", "reference_slope", "reference_gap"),
    "smoothness": ("smoothness",),
    "update_correlation": ("update_correlation", "loss_change"),
    "random_scaling": ("random_scaling", "loss_change"),
}
"""The metrics each plate draws."""


def _drawn(axes: Axes, data: Measured, metric: str, pairing: str, rows: pl.DataFrame) -> bool:
    """Single values of one pairing; words where there are none."""
    step, value = defined(rows, "value")
    if not len(step):
        nothing(axes, filled(data.why_not(metric, pairing)))
        return False
    points(axes, step, value, "each step")
    return True


def _against(
    axes: Axes, data: Measured, metric: str, rows: pl.DataFrame, change: str, estimate: str, label: str
) -> None:
    if estimate not in rows.columns or not len(defined(rows, estimate)[0]):
        nothing(axes, filled(data.why_not(metric, "previous")))
        return
    line(axes, *defined(rows, change), "Σ f(x) − f(y), the loss change", INK, width=1.8)
    line(axes, *defined(rows, estimate), label, AVERAGE, width=1.8)
    zero(axes)


def _momentum(steps: pl.DataFrame) -> float:
    if "momentum" not in steps.columns:
        return 0.0
    known = steps["momentum"].drop_nulls().unique()
    return float(known[0]) if len(known) == 1 else 0.0
