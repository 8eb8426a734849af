"""What stands in the graph in place of a metric that cannot be used: one red node that says why."""

import dagster as dg

from pipeline import lineage, pages
from pipeline.ranges import run_asset


def broken_asset(name: str, error: str) -> dg.AssetsDefinition:
    """A metric that could not be loaded, or not be made an asset of; running it says why."""

    @run_asset(
        name=name,
        deps=["geometry"],
        group_name="your_own",
        owners=lineage.YOURS,
        tags={lineage.TAG("broken"): "yes"},
        kinds={"python"},
        description=f"This metric's file could not be loaded:\n\n```\n{error}\n```",
        code_version=pages.version_of(error),
    )
    def broken(context: dg.AssetExecutionContext) -> None:
        raise dg.Failure(error)

    return broken
