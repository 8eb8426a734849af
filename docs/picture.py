"""Draw the picture of the README from a recorded run: python docs/picture.py demo-cnn-sgdm."""

import sys
from pathlib import Path

import matplotlib as mpl
import polars as pl
from matplotlib.figure import Figure

from analysis.geometry import geometry
from analysis.measure import Measurement, measure
from analysis.registry import metrics
from tracer.store import Trace, home

QUIET, STRONG, OTHER = "#9aa5b1", "#1f4e79", "#c8553d"


def draw(run: str) -> Figure:
    """Two panels: the convexity gap of each step, and what the updates promised beside what the loss did."""
    tables = geometry(Trace(home.resolve_run(run)))
    gap, correlation = (measure(metrics()[name], tables) for name in ("convexity_gap", "update_correlation"))
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)

    table = of_the_model(gap)
    left.axhline(0, color="black", linewidth=0.8)
    left.plot(table["step"], table["value"], ".", color=QUIET, markersize=4, label="one step")
    left.plot(table["step"], table["running_mean"], color=STRONG, label="running mean")
    left.set_yscale("symlog", linthresh=1e-2)
    left.set_title(f"Is the loss convex along the path?  {status(gap, 'convex on average')}", loc="left", fontsize=10)
    left.set_ylabel("convexity gap (≤ 0 if convex)")

    table = of_the_model(correlation)
    right.axhline(0, color="black", linewidth=0.8)
    right.plot(table["step"], table["cumulative"], color=OTHER, label="sum of ⟨∇f(x), x − y⟩")
    right.plot(table["step"], table["cumulative_loss_change"], color=STRONG, label="sum of f(x) − f(y)")
    found = status(correlation, "negative on average")
    right.set_title(f"Does the gradient point back?  {found}", loc="left", fontsize=10)
    right.set_ylabel("cumulative, in units of loss")

    for axes in (left, right):
        axes.set_xlabel("step")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    return figure


def of_the_model(measurement: Measurement) -> pl.DataFrame:
    """The rows that were judged."""
    return measurement.table.filter(pl.col("block").cast(pl.String) == "model", pl.col("pairing") == "previous")


def status(measurement: Measurement, claim: str) -> str:
    """The verdict on one claim."""
    return str(measurement.verdicts.filter(pl.col("claim") == claim)["status"].item())


if __name__ == "__main__":
    mpl.rcParams.update({"svg.hashsalt": "lemmata", "svg.fonttype": "path"})
    draw(sys.argv[1]).savefig(Path(__file__).with_name("picture.svg"), metadata={"Date": None})
