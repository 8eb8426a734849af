"""The body of an asset, called for one recorded run: what it gives comes back as values, and nothing is reported.

So it can be done in any process, and for many runs one after the other, where Dagster would start a step for each.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData as Target,
)

from analysis.tables import TableStore
from pipeline.stale import Node, Stamp, hashed, stamp_for, stamp_of
from tracer.store import home

Event = dg.AssetMaterialization | dg.AssetCheckEvaluation


@dataclass(frozen=True)
class Failure:
    """An asset that could not be computed, and why."""

    asset: str
    message: str


@dataclass
class Computed:
    """What became of one run: what to report, in order, the assets that were computed, and the failures."""

    run_id: str
    events: list[Event] = field(default_factory=list)
    assets: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


@cache
def _instance() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()  # bodies ask nothing of it; making one for each call would take longest


def one(node: Node, definition: dg.AssetsDefinition, run_id: str, done: Computed) -> bool:
    """Call one body and take down what it gives; whether what reads this asset may be computed."""
    sound = True
    blocking = {spec.name for spec in definition.check_specs if spec.blocking}
    try:
        for given in _given(definition, run_id):
            if isinstance(given, dg.MaterializeResult):
                done.events.append(_materialization(node, given, run_id))
                done.assets.append(node.name)
            for result in _checks(given):
                done.events.append(_evaluation(node.name, result, run_id, result.check_name in blocking))
                if (
                    result.check_name in blocking
                    and not result.passed
                    and result.severity == dg.AssetCheckSeverity.ERROR
                ):
                    sound = False
                    done.failures.append(Failure(node.name, f"{result.check_name}: {result.description}"))
    except Exception as error:  # a formula of a user may raise anything; the other assets and runs go on
        said = error.description if isinstance(error, dg.Failure) else str(error)
        done.failures = [each for each in done.failures if each.asset != node.name]
        done.failures.append(Failure(node.name, said or type(error).__name__))
        sound = False
    return sound


def _given(definition: dg.AssetsDefinition, run_id: str) -> Iterator[Any]:
    with dg.build_asset_context(partition_key=run_id, instance=_instance()) as context:
        result = definition(context)
        if isinstance(result, Iterator):
            yield from result
        else:
            yield result


def _checks(given: Any) -> Sequence[dg.AssetCheckResult]:
    return [given] if isinstance(given, dg.AssetCheckResult) else given.check_results or []


def _materialization(node: Node, given: "dg.MaterializeResult[Any]", run_id: str) -> dg.AssetMaterialization:
    """As Dagster would have made it: with the version of code and inputs that the files now have."""
    store = TableStore(home.tables_root(), run_id)
    stamp = stamp_of(store, node.name) or stamp_for(store, node)
    version = given.data_version.value if given.data_version else stamp.version
    return dg.AssetMaterialization(
        node.name,
        partition=run_id,
        metadata=given.metadata,
        tags={**provenance(stamp), "dagster/data_version": version},
    )


def provenance(stamp: Stamp) -> dict[str, str]:
    """Tags by which Dagster knows what a materialization was computed from."""
    versions = {f"dagster/input_data_version/{name}": hashed(version) for name, version in stamp.inputs.items()}
    pointers = {f"dagster/input_event_pointer/{name}": "NULL" for name in stamp.inputs}
    return {"dagster/code_version": stamp.code, **versions, **pointers}


def _evaluation(asset: str, result: dg.AssetCheckResult, run_id: str, blocking: bool) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(asset),
        check_name=str(result.check_name),
        passed=result.passed,
        metadata=result.metadata,
        severity=result.severity,
        description=result.description,
        blocking=blocking,
        partition=run_id,
    )


def aimed(instance: dg.DagsterInstance, dagster_run: str, events: Iterable[Event]) -> Iterator[Event]:
    """The events, whose checks name the materialization they are of, which was reported just before.

    Dagster's automation looks at no other check: what is downstream of a blocking one would wait for ever.
    """
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    targets: dict[tuple[dg.AssetKey, str | None], Target] = {}
    for event in events:
        of = event.asset_key, event.partition
        if isinstance(event, dg.AssetMaterialization):
            yield event
            numbers = instance.event_log_storage.get_latest_storage_id_by_partition(of[0], kind, {str(of[1])})
            number = next(iter(numbers.values()))
            targets[of] = Target(storage_id=number, run_id=dagster_run, timestamp=time.time())
        else:
            yield changed(event, target_materialization_data=targets.get(of))


def changed(event: dg.AssetCheckEvaluation, **changes: Any) -> dg.AssetCheckEvaluation:
    """The same result of a check but for what is given."""
    names = ("asset_key", "check_name", "passed", "metadata", "severity", "description", "blocking", "partition")
    kept = {name: getattr(event, name) for name in (*names, "target_materialization_data")}
    return dg.AssetCheckEvaluation(**{**kept, **changes})
