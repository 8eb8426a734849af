"""Everything Dagster serves; workspace.yaml and ``lemmata ui`` point here."""

import re
from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from analysis.metric import Metric
from analysis.registry import broken_metrics, metrics, sources
from pipeline import assets, comparison_asset, replay_asset, sensor
from pipeline.broken import broken_asset
from pipeline.executors import executor

TAKEN = frozenset({"trace", "geometry", "replays", "proofs", "verdicts", "report", "comparison"})


def build() -> dg.Definitions:
    """All assets, checks, jobs and sensors for the metrics that are there now; metric files are read anew."""
    good, broken = installed()
    nodes, refused = metric_nodes(good)
    good = {name: good[name] for name in nodes}
    broken |= refused
    return dg.Definitions(
        assets=[
            assets.trace,
            assets.geometry,
            replay_asset.replays,
            assets.proofs,
            *nodes.values(),
            *(broken_asset(name, error) for name, error in broken.items()),
            *assets.summaries(good, broken),
            comparison_asset.comparison_asset(good),
        ],
        jobs=[sensor.EVERYTHING],
        sensors=[
            sensor.recorded_runs,
            dg.AutomationConditionSensorDefinition("recompute_what_is_stale", target=dg.AssetSelection.all()),
        ],
        executor=executor(),
    )


def metric_nodes(metrics: Mapping[str, Metric]) -> tuple[dict[str, dg.AssetsDefinition], dict[str, str]]:
    """The asset of each metric, and the errors of those that Dagster refuses, under a name that it takes."""
    files = sources()
    nodes: dict[str, dg.AssetsDefinition] = {}
    refused: dict[str, str] = {}
    for name, metric in metrics.items():
        try:
            nodes[name] = assets.metric_asset(metric, files.get(name))
        except Exception as error:  # a name that Dagster keeps for itself, claims whose checks would share a name
            refused[f"{name}_broken"] = f"{files.get(name, name)}: {error}"
    return nodes, refused


def installed() -> tuple[dict[str, Metric], dict[str, str]]:
    """Metrics by asset name, and the errors of those that cannot be used, each under an asset name of its own."""
    found = metrics()
    good = {name: metric for name, metric in found.items() if name not in TAKEN}
    broken: dict[str, str] = {}
    for place, error in broken_metrics().items():
        name = re.sub(r"\W+", "_", Path(place).stem, flags=re.ASCII)
        while name in good or name in TAKEN or name in broken:
            name += "_broken"
        broken[name] = f"{place}: {error}"
    for name in sorted(found.keys() - good.keys()):
        broken[f"{name}_broken"] = (
            f"a metric may not be named {name!r}: the pipeline has an asset of that name. Rename it."
        )
    return good, broken


defs = build()
