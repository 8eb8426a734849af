"""Example figures of docs/metrics.md, drawn from recorded runs."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
from matplotlib.figure import Figure
from PIL import Image

from analysis.geometry import geometry
from analysis.measure import measure_all
from analysis.metric import Metric
from analysis.pages.figures import figure
from analysis.pages.gallery import NEEDS, PLATES, worth_drawing
from analysis.pages.measured import Measured
from analysis.pages.proof_plate import proof_bounds
from analysis.pages.svg import to_png
from analysis.proofs import proofs
from analysis.proving.prove import evaluate_all
from analysis.tables import Tables, TableStore
from tracer.store import Trace

DPI = 72
COLOURS = 128  # a figure is lines on white: a palette takes half of the room


def draw(metrics: Mapping[str, Metric], runs: Sequence[Path], into: Path) -> None:
    """Draw every metric that has a value, the paper's figures and the proofs, one PNG each.

    Each is drawn from the first of ``runs`` that has what it shows. Of a run of a home whose tables are there, what was
    replayed is drawn, too.
    """
    into.mkdir(parents=True, exist_ok=True)
    for path in into.glob("*.png"):
        path.unlink()
    measured = [(tables, measure_all(metrics.values(), tables)) for tables in map(_tables, runs)]
    for name, metric in metrics.items():
        for _, found in measured:
            if found[name].table["value"].is_finite().any():
                _write(figure(metric, found[name].table, found[name].verdicts, titled=False), into / f"{name}.png")
                break
    for name, plate in PLATES.items():
        for tables, found in measured:
            drawn = {metric: (each.table, each.verdicts) for metric, each in found.items()}
            profile = None if tables.replayed is None else tables.replayed.profile().collect()
            data = Measured(tables.facts.run_id, drawn, tables.steps.collect(), profile)
            shown = all(found[needed].table["value"].is_finite().any() for needed in NEEDS[name][:1])
            if worth_drawing(name, data) and shown:
                _write(plate(data), into / f"plate-{name}.png")
                break
    tables = measured[0][0]
    lines = pl.concat([outcome.table for outcome in evaluate_all(proofs().values(), tables).values()])
    _write(proof_bounds(tables.facts.run_id, lines), into / "plate-proofs.png")


def _tables(run: Path) -> Tables:
    store = TableStore(run.parent.parent / "tables", run.name)
    return store.tables() if store.exists("geometry") else geometry(Trace(run))


def _write(drawn: Figure, path: Path) -> None:
    picture = Image.open(io.BytesIO(to_png(drawn, DPI))).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
