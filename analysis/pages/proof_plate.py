"""The conclusions of proofs beside what was observed, as a figure."""

import textwrap
from collections.abc import Mapping
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, NullLocator

from analysis.pages.drawing import AVERAGE, INK, LIMIT, RULE, VIOLATION, canvas, dress, heading, nothing, powers

WIDTH = 9.6  # inches


def proof_bounds(run_id: str, lines: pl.DataFrame | None) -> Figure:
    """Of each proof that speaks of the run its conclusions: what was observed, and what the proof promises.

    Args:
        run_id: of the run.
        lines: a row per line of each proof, as :data:`analysis.proving.prove.LINE_SCHEMA` has them; None if there are
            none.
    """
    rows = [] if lines is None else lines.filter((pl.col("part") == "bound") & (pl.col("right") > 0)).to_dicts()
    drawn = [row for row in rows if row["left"] is not None or row["reason"].startswith("needs ")]
    fig = canvas("plate-proofs", f"What proofs promise, and what was observed      run {run_id}",
                 (WIDTH, 1.7 + 0.42 * max(len(drawn), 2)), measured=True)  # fmt: skip
    axes = fig.subplots()
    if not drawn:
        nothing(axes, "no proof that speaks of this run has a bound that could be computed; the table says why")
        return fig
    heading(axes, ["Each in its own unit; a bound right of what was observed is kept, and the distance is its slack"])
    for at, row in enumerate(drawn):
        _bound(axes, at, row)
    axes.set_xscale("log")
    powers(axes.xaxis)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(drawn)), [f"{row['proof']}\n{row['line']}" for row in drawn], parse_math=False)
    axes.set_ylim(len(drawn) - 0.4, -0.6)
    axes.margins(x=0.15)
    dress(axes, "")
    exceeded = [row["status"] == "FAILS" for row in drawn]
    keys = [
        Line2D([], [], marker=mark, ls="", ms=size, mew=width, color=colour, label=label)
        for mark, size, width, colour, label, there in (
            ("o", 7, 1.0, AVERAGE, "observed", any(map(_seen, drawn))),
            ("|", 12, 2.4, LIMIT, "bound", not all(exceeded)),
            ("|", 12, 2.4, VIOLATION, "bound, exceeded", any(exceeded)),
        )
        if there
    ]
    fig.legend(handles=keys, loc="outside lower left", frameon=False, fontsize=8, labelcolor=INK, ncols=3)
    return fig


def _seen(row: Mapping[str, Any]) -> bool:
    """Whether what was observed stands on an axis of powers."""
    return row["left"] is not None and row["left"] > 0


def _bound(axes: Axes, at: int, row: Mapping[str, Any]) -> None:
    seen, promised = row["left"], row["right"]
    if _seen(row):
        axes.plot([seen, promised], [at, at], color=RULE, lw=3, zorder=1)
        axes.plot([seen], [at], "o", ms=7, color=AVERAGE)
    else:
        why = "observed: at most 0" if seen is not None else f"not observed: {row['reason']}"
        axes.text(0.99, at - 0.22, textwrap.shorten(why, 90), transform=axes.get_yaxis_transform(), fontsize=7.5,
                  ha="right", color=INK, parse_math=False)  # fmt: skip
    axes.plot([promised], [at], "|", ms=15, mew=2.4, color=VIOLATION if row["status"] == "FAILS" else LIMIT)
