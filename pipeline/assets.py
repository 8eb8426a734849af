"""The assets: trace → geometry → one per metric, and proofs → verdicts → report. A partition is a recorded run.

Each body is a call into ``analysis`` and what its page shows. No asset reads HDF5 but the first two.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import dagster as dg
import polars as pl

import analysis.geometry
import analysis.judging.battery
import analysis.judging.verdict
import analysis.optimizers
import analysis.pages.details
import analysis.pages.drawing
import analysis.pages.figures
import analysis.pages.gallery
import analysis.pages.grouped
import analysis.pages.measured
import analysis.pages.plates
import analysis.pages.proof_plate
import analysis.pages.ratio_plate
import analysis.pages.replay_plates
import analysis.pages.report
import analysis.proving.prove
import analysis.vectors.dynamics
import analysis.vectors.dynamics_kernel
import analysis.vectors.kernel
import analysis.vectors.long
import analysis.vectors.pairs
import analysis.vectors.passes
import analysis.vectors.path
import analysis.vectors.products
import analysis.vectors.reduce
import analysis.vectors.references
import analysis.vectors.spread
import tracer.store.layout
import tracer.store.points
from analysis.metric import Metric
from analysis.pages.report_section import metric_drawing
from analysis.proofs import proofs as all_proofs
from analysis.replay_columns import depends_on_replay
from analysis.soundness.checks import trace_checks
from analysis.tables import TableStore
from pipeline import checks, lineage, pages, proof_asset, report_content
from pipeline.archives import here
from pipeline.chosen import references
from pipeline.executors import sharers
from pipeline.kept import write_drawing
from pipeline.measuring import KNOWN, measured
from pipeline.ranges import node_of, run_asset
from pipeline.results import content, current_verdicts, write_config, write_details
from pipeline.stale import StampedStore
from tracer.errors import FormatError
from tracer.store import Trace, home, verify
from tracer.store.layout import VERSION

ALL_PROOFS = all_proofs()
REPLAYS = "replays"  # the asset of :mod:`pipeline.replay_asset`
if TYPE_CHECKING:
    Result: TypeAlias = dg.MaterializeResult[None]
else:
    Result = dg.MaterializeResult  # Dagster knows the class, not its generic form
Conditions: Any = dg.AutomationCondition  # the types of its methods do not combine

# eager() ignores changed code and partitions that were there at the first tick. Without the last line automation would
# compute downstream of a damaged trace.
WHEN_INPUTS_CHANGE = (
    (
        (Conditions.missing() & ~Conditions.execution_failed())
        | Conditions.any_deps_match(Conditions.data_version_changed()).since_last_handled()
        | Conditions.code_version_changed().since_last_handled()
    )
    & ~Conditions.any_deps_missing()
    & ~Conditions.any_deps_in_progress()
    & ~Conditions.in_progress()
    & Conditions.all_deps_blocking_checks_passed()
)


def store(run_id: str) -> TableStore:
    """Tables of one run of this home."""
    return TableStore(home.tables_root(), run_id)


def stamped(context: dg.AssetExecutionContext) -> StampedStore:
    """Tables of the run of this partition, for the asset that writes some: they say what they were computed from."""
    return StampedStore(home.tables_root(), context.partition_key, node_of(context))


def read_whole(path: Path) -> Trace:
    """A trace of which every byte has been compared with its hash.

    Raises:
        FormatError: something is damaged; the message names every such file.
    """
    try:
        trace = Trace(path)
        if trace.run_id != path.name:
            raise FormatError(f"{path}: this is the run {trace.run_id!r}. Give its directory that name again.")
        for _ in trace.chunks():
            pass
        trace.records()
    except FormatError as error:
        damage = verify(path)  # reads again, to name every file
        raise FormatError("\n".join(map(str, damage)) or str(error)) from None
    return trace


@run_asset(
    **lineage.explained("trace", lineage.of_trace(), tracer.store.layout),
    code_version=f"format {VERSION}",
    kinds={"hdf5"},
    check_specs=[checks.spec("trace", checks.SOUND_FILES, "Every byte of the run matches its hash.", blocking=True)],
)
def trace(context: dg.AssetExecutionContext) -> Iterator[dg.AssetCheckResult | Result]:
    """A recorded run, every byte of it compared with its hash. Its data version is the hash of its content."""
    try:
        found = read_whole(here(context.partition_key))
    except FormatError as error:
        yield checks.damaged(str(error))
        raise dg.Failure(f"{error}\nNothing is computed from this run until that is put right.") from None
    yield dg.MaterializeResult(data_version=dg.DataVersion(found.digest), metadata=pages.of_trace(found))
    yield checks.sound(found)  # before, it would be of the materialization before, and automation would not look at it


@run_asset(
    deps=[trace],
    **lineage.explained("geometry", lineage.of_geometry(), analysis.geometry),
    code_version=pages.source_version(
        analysis.vectors.dynamics,
        analysis.vectors.dynamics_kernel,
        analysis.geometry,
        analysis.vectors.kernel,
        analysis.vectors.long,
        analysis.optimizers,
        analysis.vectors.pairs,
        analysis.vectors.passes,
        analysis.vectors.path,
        analysis.vectors.products,
        analysis.vectors.reduce,
        analysis.vectors.references,
        analysis.vectors.spread,
        tracer.store.points,
    ),
    kinds={"parquet", "numba"},
    automation_condition=WHEN_INPUTS_CHANGE,
    check_specs=checks.identity_specs(),
)
def geometry(context: dg.AssetExecutionContext) -> Result:
    """Inner products of every pair of neighbouring points: the last place where vectors are read."""
    recorded = Trace(here(context.partition_key))
    into = stamped(context)
    with into.scratch() as parts, sharers(recorded.bytes) as others:
        points = references(into)
        tables = analysis.geometry.geometry(recorded, references=points, parts=parts, workers=others)
        for name in ("geometry", "path", "steps"):
            into.write(name, getattr(tables, name))
    into.write_facts(tables.facts)
    write_config(into, recorded.manifest.config)
    checked = trace_checks(into.tables())
    if all(check.passed or check.severity != "error" for check in checked):  # else nothing may be computed from it
        into.write_facts(tables.facts, into.stamp.text)
        report_content.keep_checks(into, checked)
    return dg.MaterializeResult(metadata=pages.of_geometry(into), check_results=checks.identities(checked))


GROUPS = {
    "A": "convexity",
    "B": "reference_points",
    "C": "smoothness",
    "D": "descent",
    "E": "nonsmooth",
    "F": "noise",
    "G": "other_norms",
}


def group(metric: Metric) -> str:
    """Name of the group of the metric's family; metrics of one's own have a group to themselves."""
    return GROUPS.get(metric.family, "your_own")


def metric_asset(metric: Metric, source: Path | None = None) -> dg.AssetsDefinition:
    """The asset of one metric, defined in the file ``source``; name, page, checks and version come from its record."""

    @run_asset(
        name=metric.name,
        deps=[geometry, *([REPLAYS] if depends_on_replay(metric.all_columns, metric.pairings) else [])],
        group_name=group(metric),
        description=lineage.describe(metric),
        owners=lineage.OWNERS if metric.family in GROUPS else lineage.YOURS,
        tags=lineage.tags(metric),
        metadata=lineage.about(metric, source),
        code_version=metric.fingerprint,
        kinds={"polars"},
        automation_condition=WHEN_INPUTS_CHANGE,
        check_specs=checks.claim_specs(metric),
    )
    def computed(context: dg.AssetExecutionContext) -> Result:
        into = stamped(context)
        found = measured(metric, into)
        path = into.write(f"metrics/{metric.name}", found.table)
        kept = write_details(into, metric.name, found)
        plot = metric_drawing(metric, found.table, found.verdicts, found.windows if kept else None)
        write_drawing(into, metric.name, plot)
        verdicts = found.verdicts_with_blocks if kept else found.verdicts
        of = content(into, metric.all_columns, metric.pairings)
        into.write(f"verdicts/{metric.name}", verdicts.with_columns(digest=pl.lit(of)))
        return dg.MaterializeResult(
            metadata=pages.of_metric(metric, found, path, plot, kept),
            check_results=checks.claims(metric, found.verdicts),
        )

    KNOWN[metric.name] = metric
    return computed


@run_asset(
    deps=[geometry, REPLAYS],
    **lineage.explained("proofs", lineage.of_proofs(), analysis.proving.prove),
    code_version=pages.version_of("".join(proof.fingerprint for proof in ALL_PROOFS.values())),
    kinds={"polars"},
    automation_condition=WHEN_INPUTS_CHANGE,
    check_specs=proof_asset.check_specs(ALL_PROOFS.values()),
)
def proofs(context: dg.AssetExecutionContext) -> Result:
    """Each proof line by line on this run: which line holds, with how much slack, and which one breaks first."""
    into = stamped(context)
    outcomes, lines = proof_asset.compute(into, ALL_PROOFS)
    return dg.MaterializeResult(
        metadata=proof_asset.page(into, ALL_PROOFS, outcomes, lines),
        check_results=proof_asset.check_results(outcomes),
    )


def summaries(metrics: dict[str, Metric], broken: dict[str, str]) -> list[dg.AssetsDefinition]:
    """The assets that gather what the metrics found: ``verdicts`` and ``report``."""
    fingerprints = "".join(f"{name}={metric.fingerprint};" for name, metric in sorted(metrics.items()))

    @run_asset(
        deps=[geometry, *sorted(metrics)],
        **lineage.explained("verdicts", lineage.of_verdicts(), analysis.judging.verdict),
        code_version=pages.version_of(fingerprints),
        kinds={"polars"},
        automation_condition=WHEN_INPUTS_CHANGE,
    )
    def verdicts(context: dg.AssetExecutionContext) -> Result:
        """What held on this run and what did not: the verdicts of all metrics in one table."""
        into = stamped(context)
        table = current_verdicts(into, metrics)
        path = into.write("verdicts", table)
        return dg.MaterializeResult(metadata=pages.of_verdicts(table, path, metrics))

    @run_asset(
        deps=[verdicts, proofs],
        **lineage.explained("report", None, analysis.pages.report),
        code_version=report_content.CODE,
        kinds={"html"},
        automation_condition=WHEN_INPUTS_CHANGE,
    )
    def report(context: dg.AssetExecutionContext) -> Result:
        """One HTML file with every verdict and plot of this run, to keep or to send."""
        path, plates = report_content.write(stamped(context), metrics, broken)
        return dg.MaterializeResult(metadata=pages.of_report(path, plates))

    return [verdicts, report]
