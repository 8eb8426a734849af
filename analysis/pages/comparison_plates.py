"""Figures of many runs: smoothness against the learning rate, verdicts by optimizer, verdicts run by run."""

import textwrap
from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter

from analysis.judging.verdict import FAILS, HOLDS, INCONCLUSIVE, NOT_APPLICABLE
from analysis.pages.drawing import INK, LIMIT, LINES, RULE, VALUE, VIOLATION, canvas, dress, heading, nothing, powers

COLOURS = {HOLDS: LIMIT, INCONCLUSIVE: VALUE, FAILS: VIOLATION}  # in the order of a bar
NAMED_MOST = 14  # runs whose names stand below a figure
NAMED_POINTS = 8  # runs whose names stand beside their points without covering others
CLAIMS_MOST = 32  # claims of a figure: those on which the runs differ most
_LINE = 98  # characters of a line of a heading
_KEYS = ["metric", "claim", "kind"]
_KINDS = {"previous": "fresh", "next": "in-sample", "reference": "reference points"}


def smoothness_against_rate(runs: pl.DataFrame) -> Figure:
    """Median and largest smoothness of the second half of each run against its learning rate, beside 2/lr.

    A run that lacks one of them is named, with what it lacks.

    Args:
        runs: run_id, optimizer, lr, smoothness_median, smoothness_largest; null where it is not known.
    """
    fig = canvas("smoothness-against-rate", "Local smoothness against the learning rate", (7.2, 4.6), measured=True)
    axes = fig.subplots()
    smooth, rated = (pl.col("smoothness_median") > 0) & (pl.col("smoothness_largest") > 0), pl.col("lr") > 0
    known = runs.filter(smooth, rated).sort("optimizer", "lr", "run_id")
    left_out = _left_out(runs.select("run_id", smooth=smooth.fill_null(False), rated=rated.fill_null(False)))
    if known.is_empty():
        why = "no run has both a single learning rate and fresh pairs with gradients at two points"
        nothing(axes, "\n".join([why, *textwrap.wrap(left_out, _LINE)]))
        return fig
    says = "Fresh pairs, second half of each run. At an edge of stability the values follow 2/lr (gradient descent)"
    heading(axes, [says, *textwrap.wrap(left_out, _LINE)])
    for (name,), of in known.group_by("optimizer", maintain_order=True):
        colour = LINES[known["optimizer"].unique(maintain_order=True).to_list().index(name) % len(LINES)]
        rate = of["lr"].to_numpy()
        median, largest = of["smoothness_median"].to_numpy(), of["smoothness_largest"].to_numpy()
        axes.vlines(rate, median, largest, color=colour, lw=1.2, alpha=0.5)
        axes.plot(rate, median, "o", ms=6, color=colour, label=f"{name}: median")
        axes.plot(rate, largest, "^", ms=6, color=colour, mfc="none", label=f"{name}: largest")
    if len(known) <= NAMED_POINTS:
        _name(axes, known)
    line = np.array([known["lr"].min(), known["lr"].max()], dtype=float) * [1 / 1.5, 1.5]
    axes.plot(line, 2 / line, "--", color=INK, lw=1.2, label="2 / lr")
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        powers(axis)
        axis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.2)
    dress(axes, "loss / distance²")
    axes.set_xlabel("learning rate", color=INK, fontsize=9, loc="right")
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def _left_out(runs: pl.DataFrame) -> str:
    """Runs that are not drawn, each with what it lacks."""
    reasons = {
        "no smoothness of fresh pairs": ~pl.col("smooth"),
        "no single learning rate": pl.col("smooth") & ~pl.col("rated"),
    }
    lacking = {why: runs.filter(lacks)["run_id"].sort().to_list() for why, lacks in reasons.items()}
    parts = [f"{some(names)} ({why})" for why, names in lacking.items() if names]
    return f"not shown: {'; '.join(parts)}" if parts else ""


def some(names: Sequence[str]) -> str:
    """Names in a sentence; of many the first few and how many more there are."""
    more = len(names) - NAMED_POINTS
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:NAMED_POINTS])} and {more} more"


def _name(axes: Axes, known: pl.DataFrame) -> None:
    """Names beside the medians, on the left where another run stands close by on the right."""
    places = list(known.select("run_id", "lr", "smoothness_median").iter_rows())
    for run_id, rate, median in places:
        close = any(rate < r < 4 * rate and median / 1.7 < m < 1.7 * median for _, r, m in places)
        side, at = ("right", -7) if close else ("left", 7)
        axes.annotate(run_id, (rate, median), (at, -3), textcoords="offset points", fontsize=7.5, color=INK, ha=side,
                      parse_math=False)  # fmt: skip


def verdicts_by_optimizer(answers: pl.DataFrame, runs: pl.DataFrame) -> Figure:
    """Of each optimizer the share of runs on which a claim holds, is not decided, or fails.

    Args:
        answers: run_id, metric, claim, kind, status.
        runs: run_id, optimizer.
    """
    told = _told(answers).join(runs.select("run_id", "optimizer"), on="run_id")
    chosen = _most_telling(told, ["optimizer"])
    optimizers = told["optimizer"].unique().sort().to_list()
    fig, panels = _panels("verdicts-by-optimizer", "Verdicts by optimizer", len(chosen), len(optimizers))
    if not chosen:
        nothing(panels[0], "no run has a current verdict")
        return fig
    places = {key: at for at, key in enumerate(chosen)}
    for axes, optimizer in zip(panels, optimizers, strict=True):
        of = told.filter(pl.col("optimizer") == optimizer)
        counts = of.group_by(*_KEYS, "status").len()
        of_runs = of["run_id"].n_unique()
        heading(axes, [optimizer, f"{of_runs} run{'s' * (of_runs != 1)}"])
        left = np.zeros(len(chosen))
        totals = _spread(of.group_by(_KEYS).len(), places)
        for status, colour in COLOURS.items():
            share = _spread(counts.filter(pl.col("status") == status), places) / np.maximum(totals, 1)
            axes.barh(range(len(chosen)), share, left=left, color=colour, height=0.78, lw=0)
            left += share
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.5, 1], ["0", "½", "1"])
        dress(axes, "")
        axes.grid(visible=False)
    _claims_at_left(panels, chosen)
    _key(fig)
    return fig


def verdicts_by_run(answers: pl.DataFrame, runs: pl.DataFrame) -> Figure:
    """A cell per claim and run; runs in order of optimizer and learning rate.

    Args:
        answers: run_id, metric, claim, kind, status.
        runs: run_id, optimizer, lr.
    """
    told = _told(answers)
    chosen = _most_telling(told, ["run_id"])
    order = runs.filter(pl.col("run_id").is_in(told["run_id"].unique().implode())).sort("optimizer", "lr", "run_id")
    fig, (axes,) = _panels("verdicts-by-run", "Verdicts run by run", len(chosen), 1, 1.4)
    if not chosen:
        nothing(axes, "no run has a current verdict")
        return fig
    columns = {run_id: at for at, run_id in enumerate(order["run_id"])}
    places = {key: at for at, key in enumerate(chosen)}
    cells = np.full((len(chosen), len(columns)), np.nan)
    for *key, status, run_id in told.select(*_KEYS, "status", "run_id").iter_rows():
        if tuple(key) in places:
            cells[places[tuple(key)], columns[run_id]] = list(COLOURS).index(status)
    norm = BoundaryNorm(np.arange(len(COLOURS) + 1) - 0.5, len(COLOURS))
    edges = np.arange(len(columns) + 1) - 0.5, np.arange(len(chosen) + 1) - 0.5
    many = len(columns) > NAMED_MOST
    axes.pcolormesh(*edges, cells, cmap=ListedColormap(list(COLOURS.values())), norm=norm,
                    edgecolors="none" if many else "white", lw=0 if many else 1)  # fmt: skip
    dress(axes, "")
    axes.grid(visible=False)
    axes.set_facecolor(RULE)  # nothing said: not applicable, or not computed
    _optimizers_below(axes, order) if many else _names_below(axes, order)
    _claims_at_left([axes], chosen)
    _key(fig, {NOT_APPLICABLE.lower(): RULE})
    return fig


Key = tuple[str, ...]  # metric, claim, kind of pairing


def _told(answers: pl.DataFrame) -> pl.DataFrame:
    return answers.filter(pl.col("status") != NOT_APPLICABLE)


def _most_telling(told: pl.DataFrame, among: list[str]) -> list[Key]:
    """Claims on which ``among`` differ most in how often they hold; the most telling first."""
    share = told.group_by(*_KEYS, *among).agg(holds=(pl.col("status") == HOLDS).mean())
    spread = share.group_by(_KEYS).agg(
        apart=pl.col("holds").std().fill_null(0), holds=pl.col("holds").mean(), groups=pl.len()
    )
    order = spread.sort("apart", "groups", "holds", *_KEYS, descending=[True, True, True, False, False, False])
    return [tuple(key) for key in order.head(CLAIMS_MOST).select(_KEYS).iter_rows()]


def _spread(counts: pl.DataFrame, places: dict[Key, int]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    found = np.zeros(len(places))
    for *key, count in counts.select(*_KEYS, "len").iter_rows():
        if tuple(key) in places:
            found[places[tuple(key)]] = count
    return found


def _panels(name: str, title: str, rows: int, columns: int, width: float = 0.0) -> tuple[Figure, list[Axes]]:
    """Panels beside each other that share their rows; room for the claims' names on the left."""
    size = (max(8.6, 4.2 + 1.5 * columns), 1.4 + width + 0.2 * max(rows, 4))
    fig = canvas(name, title, size, measured=True)
    grid = fig.subplots(1, max(columns, 1), sharey=True, squeeze=False)
    return fig, list(grid[0])


def _claims_at_left(panels: Sequence[Axes], chosen: Sequence[Key]) -> None:
    names = [f"{metric}: {claim} ({_KINDS.get(kind, kind)})" for metric, claim, kind in chosen]
    panels[0].set_yticks(range(len(chosen)), names, fontsize=7.5, parse_math=False)
    panels[0].set_ylim(len(chosen) - 0.5, -0.5)
    for axes in panels:
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)


def _names_below(axes: Axes, order: pl.DataFrame) -> None:
    axes.set_xticks(range(len(order)), order["run_id"].to_list(), rotation=40, ha="right", fontsize=7.5,
                    parse_math=False)  # fmt: skip


def _optimizers_below(axes: Axes, order: pl.DataFrame) -> None:
    """One label per optimizer in the middle of its runs, and a line between two of them."""
    spans = order.with_row_index("at").group_by("optimizer", maintain_order=True).agg(pl.col("at").mean(), n=pl.len())
    axes.set_xticks(spans["at"].to_list(), [f"{name} ({n})" for name, n in spans.select("optimizer", "n").iter_rows()],
                    fontsize=8, parse_math=False)  # fmt: skip
    for edge in spans["n"].cum_sum()[:-1]:
        axes.axvline(edge - 0.5, color=INK, lw=1)


def _key(fig: Figure, more: dict[str, str] | None = None) -> None:
    patches = [Patch(color=colour, label=status.lower()) for status, colour in COLOURS.items()]
    patches += [Patch(color=colour, label=name) for name, colour in (more or {}).items()]
    fig.legend(handles=patches, loc="outside lower right", ncols=len(patches), frameon=False, fontsize=8,
               labelcolor=INK)  # fmt: skip
