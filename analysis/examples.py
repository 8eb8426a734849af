"""Example figures of docs/metrics.md, drawn from a recorded run."""

import io
from collections.abc import Mapping
from pathlib import Path

import polars as pl
from matplotlib.figure import Figure
from PIL import Image

from analysis.figures import figure
from analysis.gallery import PLATES, worth_drawing
from analysis.geometry import geometry
from analysis.measure import measure_all
from analysis.measured import Measured
from analysis.metric import Metric
from analysis.proof_plate import proof_bounds
from analysis.proofs import proofs
from analysis.prove import evaluate_all
from analysis.svg import to_png
from tracer.store import Trace

DPI = 72
COLOURS = 128  # a figure is lines on white: a palette takes half of the room


def draw(metrics: Mapping[str, Metric], run: Path, into: Path) -> None:
    """Draw every metric that has a value on ``run``, the paper's figures and the proofs, one PNG each."""
    tables = geometry(Trace(run))
    into.mkdir(parents=True, exist_ok=True)
    found = measure_all(metrics.values(), tables)
    for name, metric in metrics.items():
        if found[name].table["value"].is_finite().any():
            _write(figure(metric, found[name].table, found[name].verdicts, titled=False), into / f"{name}.png")
    drawn = {name: (each.table, each.verdicts) for name, each in found.items()}
    data = Measured(tables.facts.run_id, drawn, tables.steps.collect())
    for name, plate in PLATES.items():
        if worth_drawing(name, data):
            _write(plate(data), into / f"plate-{name}.png")
    lines = pl.concat([outcome.table for outcome in evaluate_all(proofs().values(), tables).values()])
    _write(proof_bounds(tables.facts.run_id, lines), into / "plate-proofs.png")


def _write(drawn: Figure, path: Path) -> None:
    picture = Image.open(io.BytesIO(to_png(drawn, DPI))).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
