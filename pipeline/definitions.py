"""Everything Dagster serves; workspace.yaml and ``lemmata ui`` point here."""

import importlib
import os
import re
from pathlib import Path

import dagster as dg

from analysis.metric import Metric
from analysis.registry import broken_metrics, metrics
from pipeline import assets, replay_asset, sensor
from tracer.errors import UsageError

TAKEN = frozenset({"trace", "geometry", "replays", "proofs", "verdicts", "report"})


def build() -> dg.Definitions:
    """All assets, checks, jobs and sensors for the metrics that are there now; metric files are read anew."""
    good, broken = installed()
    return dg.Definitions(
        assets=[
            assets.trace,
            assets.geometry,
            replay_asset.replays,
            assets.proofs,
            *(assets.metric_asset(metric, good) for metric in good.values()),
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


def executor() -> dg.ExecutorDefinition:
    """The executor that ``$LEMMATA_EXECUTOR`` names.

    ``in_process`` (default; a step costs milliseconds), ``multiprocess``, or ``module:name`` of any other, for instance
    ``dagster_dask:dask_executor``.

    Raises:
        UsageError: it names none.
    """
    name = os.environ.get("LEMMATA_EXECUTOR", "in_process")
    if name in ("in_process", "multiprocess"):
        return dg.in_process_executor if name == "in_process" else dg.multiprocess_executor
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"LEMMATA_EXECUTOR={name}: expected in_process, multiprocess or module:name ({error})."
        ) from None
    if not isinstance(found, dg.ExecutorDefinition):
        raise UsageError(f"LEMMATA_EXECUTOR={name}: expected a Dagster executor, found {type(found).__name__}.")
    return found


defs = build()
