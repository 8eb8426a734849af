"""Homes with small runs made by hand, and few metrics, for the tests of staleness and reruns."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from analysis import registry
from pipeline import assets, commands
from pipeline.compute import Graph
from pipeline.definitions import build
from pipeline.instance import opened
from pipeline.rerun import plan
from tests.by_hand import manifest, vectors, write_run
from tracer.store import home
from tracer.store.run_writer import RunWriter

ROWS = vectors(12, 7)
FEW = ("convexity_gap", "smoothness", "descent_term")
OWN = '''"""How far each step goes."""

from analysis.columns import Units, d_d
from analysis.metric import Claim, Metric

metric = Metric(name="own", units=Units(distance=1), value=d_d.sqrt(), claim=Claim(at_most=1e6, name="short"))
'''
BASES = {"trace", "geometry", "replays", "proofs", "verdicts", "report"}


def few_metrics(patch: pytest.MonkeyPatch) -> None:
    """Three built-in metrics and those of the user: the rule is the same, and a run takes a second."""
    every: Callable[[], dict[str, registry.Metric]] = registry.metrics
    patch.setattr(
        "pipeline.definitions.metrics",
        lambda: {name: metric for name, metric in every().items() if name in FEW or not metric.family},
    )


def record(name: str, steps: int = 6) -> Path:
    """A run of some steps of a home."""
    path = home.runs_root() / name
    write_run(path, {stream: rows[:steps] for stream, rows in ROWS.items()})
    return path


def go_on(path: Path, at: int, until: int) -> None:
    """Record further steps of a run."""
    writer = RunWriter(path, manifest(path.name), resume_at=at)
    for t in range(at, until):
        writer.append(t, {"time_ns": t, "finite": True, "loss": float(t)}, {s: v[t] for s, v in ROWS.items()})
    writer.close("finished")


def stale_of(*run_ids: str) -> dict[str, set[str]]:
    """Assets of runs that a rerun would compute, as files and instance have it."""
    with opened() as instance:
        planned = plan(instance, run_ids, Graph.of(build()))
    return {run_id: set(planned.get(run_id, ())) for run_id in run_ids}


def other_kernel(patch: pytest.MonkeyPatch) -> None:
    """The geometry as if its code had been changed."""
    changed = assets.geometry.map_asset_specs(lambda spec: spec.replace_attributes(code_version="another kernel"))
    patch.setattr(assets, "geometry", changed)


def tables(run_id: str) -> dict[str, bytes]:
    """Every Parquet file of a run, by its path."""
    root = home.tables_root() / run_id
    return {os.fspath(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.parquet"))}


def last(instance: dg.DagsterInstance, asset: str, run_id: str) -> dg.AssetMaterialization | None:
    """What the instance has of an asset."""
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[run_id])
    records = instance.fetch_materializations(wanted, limit=1).records
    return records[0].asset_materialization if records else None


def say(arguments: list[str]) -> int:
    """Exit code of the command line; what it prints is printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lemmata", *arguments])
        try:
            commands.main()
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0
