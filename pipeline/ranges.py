"""One Dagster run for many recorded runs: a backfill of 200 runs starts four processes and not 200.

Of such a Dagster run an asset has one step, and for all its partitions one page and one version: Dagster's events know
no other. So the body of the asset is called for each partition by itself, and what it gives is reported for that
partition, as ``lemmata rerun`` does. A partition that fails becomes a failed Dagster run of its own; the others go on.
"""

import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import dagster as dg
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION as REPORTED
from dagster._core.storage.tags import BACKFILL_ID_TAG

from pipeline.bodies import Computed, Event, aimed, changed, one
from pipeline.failures import report_failure
from pipeline.instance import PARTITIONS
from pipeline.settings import together
from pipeline.stale import Node

RUNS = dg.DynamicPartitionsDefinition(name=PARTITIONS)
Body: TypeAlias = Callable[[dg.AssetExecutionContext], Any]
WITHIN, FAILED = "lemmata/within", "lemmata/failed"  # tags of a failed Dagster run: in which one of many, and what
STOPPING = frozenset({"trace", "geometry"})  # without these nothing of a run is computed
GATHERING = frozenset({"verdicts", "report"})  # these gather what there is


def run_asset(**options: Any) -> Callable[[Body], dg.AssetsDefinition]:
    """``dg.asset`` with a partition per recorded run; the body computes one, the asset any number of them."""

    def made(body: Body) -> dg.AssetsDefinition:
        @functools.wraps(body)
        def computed(context: dg.AssetExecutionContext) -> Any:
            return body(context) if context.has_partition_key else _several(context)

        computed.__annotations__["return"] = dg.MaterializeResult  # what Dagster reads there, also of one that yields
        del computed.__wrapped__  # where it would look first
        with warnings.catch_warnings():  # the parameter is called a beta
            warnings.filterwarnings("ignore", message=".*backfill_policy", category=dg.BetaWarning)
            asset: Callable[[Body], dg.AssetsDefinition] = dg.asset(
                partitions_def=RUNS, backfill_policy=policy(), **options
            )
        return asset(computed)

    return made


def policy() -> dg.BackfillPolicy:
    """How many recorded runs a Dagster run of a backfill computes; the same for every asset, so they share runs."""
    return dg.BackfillPolicy.multi_run(together())


def node_of(context: dg.AssetExecutionContext) -> Node:
    """The asset that is computed: its name, the version of its code, and the assets it reads."""
    key = context.asset_key
    inputs = sorted(parent.path[-1] for parent in context.assets_def.asset_deps[key])
    return Node(key.path[-1], context.assets_def.code_versions_by_key[key] or "", tuple(inputs))


def _several(context: dg.AssetExecutionContext) -> Iterator[Any]:
    node, run = node_of(context), context.run
    before = _failed_before(context)
    told = {WITHIN: run.run_id, FAILED: node.name}
    if BACKFILL_ID_TAG in run.tags:  # by which the backfill counts what failed
        told[BACKFILL_ID_TAG] = run.tags[BACKFILL_ID_TAG]
    for run_id in context.partition_keys:
        if before.get(run_id, set()) & _needed(node):
            continue
        done = Computed(run_id)
        one(node, context.assets_def, run_id, done)
        yield from aimed(context.instance, run.run_id, map(_not_blocking, done.events))
        for failure in done.failures:
            context.log.error(f"{run_id}: {failure.message}")
            report_failure(context.instance, run_id, node.name, failure.message, told)
    for spec in context.assets_def.check_specs:  # their results have been given; Dagster waits for one of each
        yield dg.Output(None, output_name=spec.get_python_identifier())
    yield dg.MaterializeResult(metadata={REPORTED: True})  # so that Dagster adds no event of its own


def _not_blocking(event: Event) -> Event:
    """A failed check that blocks would end the step, and hide the runs after it; this run is blocked by its failure."""
    if isinstance(event, dg.AssetMaterialization) or event.passed:
        return event
    return changed(event, blocking=False)


def _needed(node: Node) -> frozenset[str]:
    """Assets that must not have failed in this Dagster run."""
    return STOPPING if node.name in GATHERING else STOPPING | set(node.inputs)


def _failed_before(context: dg.AssetExecutionContext) -> dict[str, set[str]]:
    """Assets that failed earlier in this Dagster run, by recorded run."""
    found: dict[str, set[str]] = {}
    for run in context.instance.get_runs(filters=dg.RunsFilter(tags={WITHIN: context.run.run_id})):
        found.setdefault(run.tags["dagster/partition"], set()).add(run.tags[FAILED])
    return found
