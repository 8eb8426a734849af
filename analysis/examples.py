"""Example figures of docs/metrics.md, drawn from a recorded run."""

from collections.abc import Mapping
from pathlib import Path

from analysis.figures import figure, to_png
from analysis.geometry import geometry
from analysis.measure import measure
from analysis.metric import Metric
from tracer.store import Trace

DPI = 84
"""Small enough for a repository, large enough to be read: a figure has some 25 kB."""


def draw(metrics: Mapping[str, Metric], run: Path, into: Path) -> None:
    """Draw every metric that has a value on ``run``, one PNG each; figures of other metrics are left alone."""
    tables = geometry(Trace(run))
    into.mkdir(parents=True, exist_ok=True)
    for name, metric in metrics.items():
        found = measure(metric, tables)
        if found.table["value"].is_finite().any():
            (into / f"{name}.png").write_bytes(to_png(figure(metric, found.table, found.verdicts), DPI))
