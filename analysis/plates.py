"""The paper's figures for one run, at print quality: gap, ratio, smoothness, update correlation, random scaling.

Each is a function from what was measured to a figure. What a run lacks (a probe, a random scale, losses at a reference
point) is said in the place where it would be drawn.
"""

import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.battery import CONTROLS
from analysis.drawing import (
    AVERAGE,
    DASHED,
    EXTREME,
    INK,
    LIMIT,
    LINES,
    OTHER,
    VIOLATION,
    Floats,
    Steps,
    Style,
    canvas,
    defined,
    dress,
    heading,
    legend,
    line,
    nothing,
    points,
    scale,
    steps_below,
    zero,
)
from analysis.tables import MODEL, REFERENCE

_WIDTH, _HALF = 9.6, 3.8  # inches of a plate, of one of two panels beside each other
_FRESH = "FRESH: from x_{t−1} to x_t, on z_t"
_IN_SAMPLE = "IN-SAMPLE: from x_t to x_{t+1}, on z_t"


SEPARATOR = "   ·   "


@dataclass(frozen=True, eq=False)
class Measured:
    """What plates are drawn from.

    Args:
        run_id: of the run.
        found: by metric name its table and its verdicts.
        steps: the run's step records.
    """

    run_id: str
    found: Mapping[str, tuple[pl.DataFrame, pl.DataFrame]]
    steps: pl.DataFrame

    def rows(self, metric: str, pairing: str) -> pl.DataFrame:
        """The model's rows of one pairing in order of steps; none where the metric was not measured."""
        if metric not in self.found:
            return pl.DataFrame(schema={"step": pl.Int64, "value": pl.Float64})
        table = self.found[metric][0]
        chosen = (pl.col("pairing").cast(pl.String) == pairing) & (pl.col("block").cast(pl.String) == MODEL)
        return table.filter(chosen).sort("step")

    def references(self, metric: str) -> list[str]:
        """Names of the reference points, the negative controls last."""
        if metric not in self.found:
            return []
        names = self.found[metric][0]["pairing"].cast(pl.String).unique(maintain_order=True)
        found = [name.removeprefix(REFERENCE) for name in names if name.startswith(REFERENCE)]
        return sorted(found, key=lambda name: name in CONTROLS)

    def why_not(self, metric: str, pairing: str) -> str:
        """Why there is nothing to draw, in the words of the verdict."""
        if metric not in self.found:
            return f"the metric {metric} was not measured"
        verdicts = self.found[metric][1]
        rows = verdicts.filter(pl.col("pairing") == pairing)
        reasons = [row["reason"] for row in rows.to_dicts() if row["missing"] or not row["pairs"]]
        return reasons[0] if reasons else f"no pairs with pairing {pairing!r}"

    def said(self, metric: str, pairing: str) -> str:
        """Claims and their statuses in one line."""
        if metric not in self.found:
            return ""
        verdicts = self.found[metric][1]
        rows = verdicts.filter((pl.col("pairing") == pairing) & (pl.col("rule") != "none"))
        return SEPARATOR.join(f"{row['claim']}: {row['status']}" for row in rows.to_dicts())


def convexity_gap(data: Measured) -> Figure:
    """Gap of each step with its running and exponential mean, on fresh minibatches and in-sample."""
    fig, panels = _beside(data, "convexity_gap", "Convexity gap  f(x) − f(y) − ⟨∇f(x), x − y⟩  (≤ 0 if convex)")
    values = []
    for axes, pairing, says in zip(panels, ("previous", "next"), (_FRESH, _IN_SAMPLE), strict=True):
        rows = data.rows("convexity_gap", pairing)
        heading(axes, [says, *_wrapped(data.said("convexity_gap", pairing))])
        if _drawn(axes, data, "convexity_gap", pairing, rows):
            axes.axhline(0, color=INK, lw=1, ls=(0, (4, 3)))
            line(axes, *defined(rows, "running_mean"), "average so far", AVERAGE, width=1.9)
            line(axes, *defined(rows, "exponential_mean"), "exponential mean, 0.99", OTHER, width=1.2)
            values.append(defined(rows, "value")[1])
    _finish(panels, "loss", np.concatenate(values) if values else None)
    return fig


def smoothness(data: Measured) -> Figure:
    """Local smoothness with its maximum, exponential mean and 2/lr; beside it what unpaired minibatches pretend."""
    fig, panels = _beside(data, "smoothness", "Local smoothness  ‖∇f(x) − ∇f(y)‖ / ‖x − y‖")
    values = []
    says = _FRESH, "UNPAIRED: x_t on z_t, x_{t−1} on z_{t−1}. Mostly noise"
    for axes, pairing, words in zip(panels, ("previous", "unpaired"), says, strict=True):
        rows = data.rows("smoothness", pairing)
        heading(axes, [words, *_wrapped(data.said("smoothness", pairing) if pairing == "previous" else "never judged")])
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
    _finish(panels, "loss / distance²", together)
    return fig


def update_correlation(data: Measured) -> Figure:
    """Update correlation of each step, and its sum beside the sum of loss changes and of promised descent."""
    title = "Update correlation  ⟨∇f(x_t, z_t), x_t − x_{t−1}⟩"
    fig, (left, right) = _beside(data, "update_correlation", title)
    rows = data.rows("update_correlation", "previous")
    heading(left, [_FRESH, *_wrapped(data.said("update_correlation", "previous"))])
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
        nothing(right, _filled(data.why_not("loss_change", "previous")))
    for (step, value), label, colour in known:
        if len(step):
            line(right, step, value, label, colour, width=1.8)
    zero(right)
    _finish((left, right), "loss", None)
    return fig


def random_scaling(data: Measured) -> Figure:
    """Cumulative loss change against what the gradients at the new points say of it, with and without scaling."""
    title = "Random scaling: loss change against its estimate from gradients at the new point"
    fig, (left, right) = _beside(data, "random_scaling", title)
    change = data.rows("loss_change", "previous")
    scaled = data.rows("random_scaling", "previous")
    heading(
        left,
        ["WITHOUT the random factor", "slope and loss change agree only where the loss is a line"],
    )
    _against(left, data, "loss_change", change, "cumulative", "cumulative_update_correlation", "Σ ⟨∇f(x), x − y⟩")
    names = "cumulative_loss_change", "cumulative_slope", "Σ ⟨∇f(x), (x − y)/s⟩"
    heading(
        right, ["WITH it: an identity on average for s ~ Exp(1)", *_wrapped(data.said("random_scaling", "previous"))]
    )
    _against(right, data, "random_scaling", scaled, *names)
    _finish((left, right), "loss", None)
    return fig


def convexity_ratio(data: Measured) -> Figure:
    """Σ slopes over Σ loss differences for each reference, per epoch and so far; the numerators for all of them."""
    names = data.references("reference_slope") or data.references("convexity_ratio")
    fig = canvas("plate-convexity_ratio", "Convexity ratio  Σ ⟨∇f(x), x − x_r⟩ / Σ (f(x) − f(x_r))", (_WIDTH, 6.9))
    grid = fig.subplots(2, 2)
    fig.delaxes(grid[1, 1])
    epochs, so_far, numerators = grid[0, 0], grid[0, 1], grid[1, 0]
    colours = dict(zip(names, LINES * 3, strict=False))
    heading(epochs, [f"PER EPOCH, run {data.run_id}", "≥ 1: the identity of convex analyses; ≥ 0: quasar-convex"])
    heading(so_far, ["SO FAR", ""])
    heading(numerators, ["NUMERATOR so far: needs no loss at the reference", "its sign alone says nothing of the loss"])
    _ratio_per_epoch(epochs, data, names, colours)
    _lines(so_far, data, "convexity_ratio", "cumulative_ratio", names, colours)
    _lines(numerators, data, "reference_slope", "cumulative", names, colours)
    for axes in (epochs, so_far):
        for bound in (0, 1) if axes.lines else ():
            axes.axhline(bound, color=INK, lw=0.9, ls=(0, (4, 3)))
        _within(axes, -3, 6)
        dress(axes, "ratio")
    scale(numerators, np.concatenate([part.get_ydata() for part in numerators.lines] or [np.zeros(0)]))
    zero(numerators)
    dress(numerators, "loss")
    _key(fig, colours)
    epochs.set_xlabel("epoch", color=INK, fontsize=9, loc="right")
    for axes in (so_far, numerators):
        steps_below(axes)
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


def _beside(data: Measured, name: str, title: str) -> tuple[Figure, tuple[Axes, Axes]]:
    """A figure of two panels beside each other."""
    fig = canvas(f"plate-{name}", f"{title}      run {data.run_id}", (_WIDTH, 4.2))
    left, right = fig.subplots(1, 2)
    return fig, (left, right)


def _drawn(axes: Axes, data: Measured, metric: str, pairing: str, rows: pl.DataFrame) -> bool:
    """Single values of one pairing; words where there are none."""
    step, value = defined(rows, "value")
    if not len(step):
        nothing(axes, _filled(data.why_not(metric, pairing)))
        return False
    points(axes, step, value, "each step")
    return True


def _against(
    axes: Axes, data: Measured, metric: str, rows: pl.DataFrame, change: str, estimate: str, label: str
) -> None:
    if estimate not in rows.columns or not len(defined(rows, estimate)[0]):
        nothing(axes, _filled(data.why_not(metric, "previous")))
        return
    line(axes, *defined(rows, change), "Σ f(x) − f(y), the loss change", INK, width=1.8)
    line(axes, *defined(rows, estimate), label, AVERAGE, width=1.8)
    zero(axes)


def _ratio_per_epoch(axes: Axes, data: Measured, names: Iterable[str], colours: Mapping[str, str]) -> None:
    drawn = False
    for name in names:
        epoch, ratio = _per_epoch(data, REFERENCE + name)
        if len(epoch):
            drawn = True
            style: Style = DASHED if name in CONTROLS else "-"
            axes.plot(epoch, ratio, marker=".", ls=style, color=colours[name], lw=1.2, ms=5, label=name)
    if not drawn:
        nothing(axes, _filled(_no_ratio(data)))


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
        nothing(axes, _filled(missing))


def _no_ratio(data: Measured) -> str:
    if not data.references("reference_slope"):
        return "this run has no pairs with a reference point"
    return (
        "f(x_r, z_t), the loss at the reference points on each minibatch, is not known: it has to be replayed. "
        "The numerator below needs no loss"
    )


def _within(axes: Axes, low: float, high: float) -> None:
    """No more than the range in which a ratio means something; beyond it a denominator crosses zero."""
    now = axes.get_ylim()
    axes.set_ylim(max(low, now[0]), min(high, now[1]))


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


def _finish(panels: Iterable[Axes], unit: str, shared: Floats | None) -> None:
    """One scale for all panels where they show the same; legends below."""
    panels = list(panels)
    if shared is not None and len(shared):
        for axes in panels:
            scale(axes, shared)
        drawn = [axes for axes in panels if axes.lines or axes.collections]
        low = min(axes.get_ylim()[0] for axes in drawn)
        high = max(axes.get_ylim()[1] for axes in drawn)
        for axes in drawn:
            axes.set_ylim(low, high)
    for axes in panels:
        dress(axes, unit)
        steps_below(axes)
        legend(axes, _HALF)


def _momentum(steps: pl.DataFrame) -> float:
    if "momentum" not in steps.columns:
        return 0.0
    known = steps["momentum"].drop_nulls().unique()
    return float(known[0]) if len(known) == 1 else 0.0


def _wrapped(text: str, width: int = 58) -> list[str]:
    """Claims with their statuses, as many to a line as fit; none is broken in two."""
    lines = [""]
    for said in text.split(SEPARATOR):
        joined = f"{lines[-1]}{SEPARATOR}{said}" if lines[-1] else said
        lines = [*lines[:-1], joined] if len(joined) <= width or not lines[-1] else [*lines, said]
    return lines


def _filled(text: str) -> str:
    return textwrap.fill(text, 52)
