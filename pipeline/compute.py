"""Compute assets of one run by calling their bodies: no Dagster run, so it can be done in any process.

What a body returns (its page, its check results) comes back as values, for the one process that reports it.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

import dagster as dg

from analysis.remote import is_local
from analysis.tables import TableStore
from pipeline.bodies import Computed, one
from pipeline.definitions import build
from pipeline.instance import alone
from pipeline.measuring import together
from pipeline.stale import Node, stamp_for, stamp_of
from tracer.store import home


@dataclass(frozen=True)
class Graph:
    """The assets that have a partition per run, inputs first, and their definitions."""

    nodes: Mapping[str, Node]
    definitions: Mapping[str, dg.AssetsDefinition]

    @classmethod
    def of(cls, definitions: dg.Definitions) -> "Graph":
        """The graph of what Dagster serves; assets about several runs are left out."""
        graph = definitions.resolve_asset_graph()
        found = [graph.get(key) for key in graph.toposorted_asset_keys]
        mine = [node for node in found if isinstance(node.partitions_def, dg.DynamicPartitionsDefinition)]
        nodes = {
            node.key.path[-1]: Node(
                node.key.path[-1], node.code_version or "", tuple(sorted(key.path[-1] for key in node.parent_keys))
            )
            for node in mine
        }
        return cls(nodes, {node.key.path[-1]: node.assets_def for node in mine})


@cache
def graph() -> Graph:
    """The graph as this process found it when it first asked; made once, because it takes seconds."""
    return Graph.of(build())


def compute(run_id: str, reasons: Mapping[str, str], of: Graph | None = None) -> Computed:
    """Compute the assets that ``reasons`` names, those that turn out to be current excepted.

    What follows from a failed asset, or from one whose blocking check failed, is not computed; ``verdicts`` and
    ``report`` gather what there is. Of two processes that compute one run the second waits, and finds it done.
    """
    directory = home.tables_root() / run_id
    directory = directory if is_local(directory) else home.scratch_root() / run_id
    directory.mkdir(parents=True, exist_ok=True)
    with alone(directory), together(reasons):
        done = _in_order(run_id, reasons, of or graph())
    with suppress(OSError):
        directory.rmdir()  # of a damaged run nothing was written
    return done


def _in_order(run_id: str, reasons: Mapping[str, str], of: Graph) -> Computed:
    done = Computed(run_id)
    stopped: set[str] = set()
    store = TableStore(home.tables_root(), run_id)
    for name in (name for name in of.nodes if name in reasons):
        node = of.nodes[name]
        if stopped & set(node.inputs) and (name not in ("verdicts", "report") or "geometry" in stopped):
            stopped.add(name)
            continue
        due = reasons[name] in IN_ANY_CASE or stamp_of(store, name) != stamp_for(store, node)
        if due and not one(node, of.definitions[name], run_id, done):
            stopped.add(name)
    return done


IN_ANY_CASE = ("not in the instance", "not verified since it changed", "asked for")
