"""The asset ``comparison``: all runs of this home beside each other. It has no partitions."""

from collections.abc import Mapping

import dagster as dg

import analysis.pages.across
import analysis.pages.comparison_plates
import pipeline.across
from analysis.metric import Metric
from analysis.pages.across import CURRENT, Across
from analysis.pages.svg import Drawing
from analysis.proofs import proofs
from analysis.tables import TableStore
from pipeline import lineage, pages
from pipeline.assets import Conditions, Result
from tracer.store import home

NAME = "comparison"
EVERY_RUN = "every_run_is_compared"
PAGE = "comparison.html"
# Whenever verdicts of any run changed, but once for all of them: while one is being computed, it waits. Not
# `~any_deps_missing`: a run that cannot be computed must not hide the others.
WHEN_RUNS_ARE_DONE = (
    (
        (Conditions.missing() & ~Conditions.execution_failed() & Conditions.any_deps_match(~Conditions.missing()))
        | Conditions.any_deps_match(Conditions.data_version_changed()).since_last_handled()
        | Conditions.code_version_changed().since_last_handled()
    )
    & ~Conditions.any_deps_in_progress()
    & ~Conditions.in_progress()
)


def comparison_asset(metrics: Mapping[str, Metric]) -> dg.AssetsDefinition:
    """The asset; ``metrics`` are those whose verdicts count as current."""

    @dg.asset(
        name=NAME,
        deps=[dg.AssetDep(name, partition_mapping=dg.AllPartitionMapping()) for name in ("verdicts", "proofs")],
        **lineage.explained(NAME, lineage.of_comparison(), analysis.pages.across),
        code_version=pages.source_version(analysis.pages.across, analysis.pages.comparison_plates, pipeline.across),
        kinds={"polars", "html"},
        automation_condition=WHEN_RUNS_ARE_DONE,
        check_specs=[dg.AssetCheckSpec(EVERY_RUN, asset=NAME, description=_CHECKED)],
    )
    def comparison() -> Result:
        """:data:`pipeline.lineage.METHOD` says what it is."""
        found = pipeline.across.gather(metrics, proofs())
        drawn = analysis.pages.across.figures(found)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(pipeline.across.version(found)),
            metadata=_page(found, _written(found, metrics, drawn), drawn),
            check_results=[_checked(found)],
        )

    return comparison


_CHECKED = "Every run of this home stands in the comparison, with a current verdict of every metric."


def _written(found: Across, metrics: Mapping[str, Metric], drawn: Mapping[str, Drawing]) -> TableStore:
    """Two tables and the page."""
    into = TableStore.across(home.tables_root())
    into.write("runs", found.runs)
    into.write("answers", found.answers)
    reports = {
        run_id: f"../{run_id}/report.html"
        for run_id in found.runs["run_id"]
        if TableStore(home.tables_root(), run_id).path("verdicts").with_name("report.html").is_file()
    }
    letters = {name: metric.family for name, metric in metrics.items()}
    into.write_text(PAGE, analysis.pages.across.page(found, letters, reports, drawn))
    return into


def _page(found: Across, into: TableStore, drawn: Mapping[str, Drawing]) -> pages.Page:
    left_out = found.left_out.select("run_id", "state", "why")
    path = into.path("answers").with_name(PAGE)
    return {
        "compared": found.said,
        **{name: pages.image(name, each) for name, each in drawn.items()},
        "runs": pages.table(found.runs.drop("why")),
        **({"not up to date": pages.table(left_out)} if len(left_out) else {}),
        "comparison": dg.MetadataValue.url(path.as_uri()),
        "path": dg.MetadataValue.path(str(into.path("answers"))),
        "dagster/row_count": len(found.answers),
        **lineage.columns_of_comparison(),
        "runs compared": int((found.runs["state"] == CURRENT).sum()),
    }


def _checked(found: Across) -> dg.AssetCheckResult:
    left_out = found.left_out
    named = "; ".join(f"{r['run_id']}: {r['state']}" for r in left_out.head(20).to_dicts())
    return dg.AssetCheckResult(
        check_name=EVERY_RUN,
        passed=left_out.is_empty(),
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{found.said}. {named}".strip(),
    )
