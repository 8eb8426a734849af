"""Everything Dagster serves; workspace.yaml and ``lemmata ui`` point here."""

import re
from pathlib import Path

import dagster as dg

from analysis.metric import Metric
from analysis.registry import broken_metrics, metrics
from pipeline import assets, sensor
from pipeline.executors import executor

TAKEN = frozenset({"trace", "geometry", "proofs", "verdicts", "report"})


def build() -> dg.Definitions:
    """All assets, checks, jobs and sensors for the metrics that are there now; metric files are read anew."""
    good, broken = installed()
    return dg.Definitions(
        assets=[
            assets.trace,
            assets.geometry,
            assets.proofs,
            *(assets.metric_asset(metric) for metric in good.values()),
            *(assets.broken_asset(name, error) for name, error in broken.items()),
            *assets.summaries(good, broken),
        ],
        jobs=[sensor.EVERYTHING],
        sensors=[
            sensor.recorded_runs,
            dg.AutomationConditionSensorDefinition("recompute_what_is_stale", target=dg.AssetSelection.all()),
        ],
        executor=executor(),
    )


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
