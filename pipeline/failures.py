"""A failure of one asset of one recorded run, where it happened in a Dagster run of many."""

from collections.abc import Mapping

import dagster as dg

from pipeline.abandoned import owner
from pipeline.instance import PARTITIONS

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}  # failures are told once, by the caller


def report_failure(
    instance: dg.DagsterInstance, run_id: str, asset: str, message: str, tags: Mapping[str, str] | None = None
) -> None:
    """Record a failed Dagster run of this asset and partition, which says why; ``tags`` are added to its own."""

    @dg.asset(name=asset, partitions_def=dg.DynamicPartitionsDefinition(name=PARTITIONS))
    def failed() -> None:
        raise dg.Failure(message)

    dg.materialize(
        [failed],
        instance=instance,
        partition_key=run_id,
        run_config=QUIET,
        raise_on_error=False,
        tags={**owner(), **(tags or {})},
    )
