"""What the lineage page says of an asset before anything is computed: owner, tags, method, columns, source file.

Groups follow the method: recorded → geometry, replay → a group per family of metrics → proofs → verdicts → report, and
comparison across runs.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypedDict

import dagster as dg
import polars as pl

from analysis.columns import COLUMNS, Units
from analysis.judging.verdict_table import VERDICT_SCHEMA
from analysis.metric import FAMILIES, Metric
from analysis.pages.across import ANSWER_SCHEMA
from analysis.proving.prove import LINE_SCHEMA
from pipeline import meanings
from tracer.store.layout import STREAMS, record_schema

OWNERS = ["team:lemmata"]
YOURS = ["team:your_own"]
TAG = "lemmata/{}".format
GROUP = {"trace": "recorded", "replays": "replay"}  # the others are named as their asset
_PAIR = {
    "pairing": "which pairs: previous (fresh), next (in-sample), reference:NAME, unpaired (never judged)",
    "step": "t, the optimizer update whose minibatch z_t both points are asked on",
    "block": "a parameter tensor, or `model` for all of them",
}
_VECTORS = {"d": ("x",), "gx": ("g",), "gy": ("h",), "dg": ("g", "h")}  # streams of the trace behind a name's parts

METHOD = {
    "trace": "A recorded run, every byte of it compared with its hash. Its data version is the hash of its content.\n\n"
    "Training wrote, step by step, the point x_t, the gradient g_t of the minibatch z_t and its loss; with the "
    "look-back probe also loss and gradient of the same minibatch at x_{t−1}. All else here is computed from it.",
    "geometry": "Inner products of every pair of points: the last place where vectors are read.\n\n"
    "A pair is two points x and y asked on *one* minibatch, with d = x − y. Its row holds a handful of numbers: "
    "`gx_d` is ⟨∇f(x), d⟩, `dg_dg` is ‖∇f(x) − ∇f(y)‖², and so on; differences are taken before products, sums are in "
    "double precision. Every metric is a formula over these columns. Before anything is computed from them, identities "
    "that hold for every sound recording are checked.",
    "replays": "What was asked of this run's minibatches after it ended: the loss at reference points, along steps, on "
    "the whole data; sharpness. `lemmata replay` asks, with the run's own model; this only shows what was found.\n\n"
    "Its data version is the content of what was found: after a replay, the metrics that read it are stale.",
    "proofs": "Convergence proofs held against the run line by line: which line holds, with how much slack, and which "
    "one breaks the proof first. A proof is a check of its own.",
    "verdicts": "What held on this run and what did not: the verdicts of all metrics in one table.\n\n"
    "`HOLDS`, `FAILS`, `INCONCLUSIVE` or `NOT APPLICABLE`, each with its numbers and its reason. A claim that fails "
    "is a finding, not an error.",
    "report": "One HTML file with every verdict and plot of this run, to keep or to send.",
    "comparison": "All runs beside each other: smoothness against the learning rate, verdicts by optimizer and run by "
    "run. Not partitioned: one page for all runs. A run that is not computed, or not up to date, is listed with the "
    "reason.",
}


def tags(metric: Metric) -> dict[str, str]:
    """Tags to search metrics by: family, catalogue number, pairs, and whether anything is claimed."""
    found = {
        "family": metric.family or "own",
        "catalogue": ".".join(metric.catalogue),
        "pairs": ".".join(metric.pairings),
        "judged": "yes" if metric.claims else "no",
    }
    return {TAG(name): value for name, text in found.items() if (value := re.sub(r"[^\w.-]", "_", text)[:63])}


def describe(metric: Metric) -> str:
    """A metric in Markdown: what it is, formula, unit, source, claims and what they do not say."""
    parts = [metric.title, f"```\n{metric.formula}\n```", f"Unit: {metric.units}. {_pairs(metric)}"]
    parts.append(f"Source: {metric.paper or 'none named'}")
    parts += [f"Family: {FAMILIES[metric.family]}."] * (metric.family in FAMILIES)
    parts += [f"**Claim: {claim.name}.** {claim.says} {claim.caveat}".strip() for claim in metric.claims]
    return "\n\n".join([*parts, *metric.caveats])


def _pairs(metric: Metric) -> str:
    return f"Pairs: {', '.join(metric.pairings)}. Reads: {', '.join(metric.columns)}."


def about(metric: Metric, source: Path | None) -> dict[str, Any]:
    """Metadata of a metric's definition."""
    return {
        "formula": dg.MetadataValue.md(f"```\n{metric.formula}\n```"),
        "paper": metric.paper or "none named",
        "unit": str(metric.units),
        "dagster/column_schema": of_metric(metric),
        **_file(source),
    }


class Explained(TypedDict):
    """Arguments of an asset's definition."""

    group_name: str
    description: str
    owners: Sequence[str]
    metadata: Mapping[str, Any]


def explained(asset: str, schema: dg.TableSchema | None, source: ModuleType) -> Explained:
    """What the page of an asset of the method says before anything is computed, as arguments of its definition."""
    columns = {} if schema is None else {"dagster/column_schema": schema}
    return {
        "group_name": GROUP.get(asset, asset),
        "description": METHOD[asset],
        "owners": OWNERS,
        "metadata": {**columns, **_file(source.__file__)},
    }


def _file(source: Path | str | None) -> dict[str, Any]:
    return {} if source is None else {"source": dg.MetadataValue.path(source)}


def of_trace() -> dg.TableSchema:
    """Step records and vectors of a run."""
    records = [_column(f.name, str(f.type), meanings.RECORDS.get(f.name, "")) for f in record_schema(())]
    vectors = [_column(name, "vector", f"{text}; one number per parameter") for name, text in STREAMS.items()]
    return dg.TableSchema([*records, *vectors])


def of_geometry() -> dg.TableSchema:
    """Columns of the three tables that geometry writes."""
    columns = [
        _column(name, "float64", f"{column.meaning} (table {column.table})", column.units)
        for name, column in COLUMNS.items()
        if column.table in ("geometry", "path", "steps")
    ]
    return dg.TableSchema([*_pair_columns(), *columns])


def of_replays() -> dg.TableSchema:
    """Columns that a replay puts beside the pairs of the geometry."""
    columns = [
        _column(name, "float64", column.meaning, column.units)
        for name, column in COLUMNS.items()
        if column.table == "replay"
    ]
    return dg.TableSchema([*_pair_columns(), *columns])


def of_metric(metric: Metric) -> dg.TableSchema:
    """Columns of a metric's table."""
    columns = [
        _column("value", "float64", f"{metric.title}; null is missing, NaN undefined", metric.units),
        _column("tolerance", "float64", "what rounding alone can do to the value", metric.units),
        *(_column(series.name, "float64", series.title) for series in metric.series),
        *(_column(variant.name, "float64", variant.title, metric.units) for variant in metric.variants),
    ]
    return dg.TableSchema([*_pair_columns(), *columns])


def of_verdicts() -> dg.TableSchema:
    """Columns of a verdict table."""
    return _of(VERDICT_SCHEMA, meanings.VERDICTS)


def of_proofs() -> dg.TableSchema:
    """Columns of the table of proof lines."""
    return _of(LINE_SCHEMA, meanings.LINES)


def of_comparison() -> dg.TableSchema:
    """Columns of the answers of all runs."""
    return _of(ANSWER_SCHEMA, meanings.ANSWERS)


def columns_of_geometry() -> dict[str, Any]:
    """Which streams and records of the trace each column of the table of pairs is made of."""
    deps = {"loss_x": ["loss"], "loss_y": ["loss_previous", "loss_next", "loss"]}
    for name, column in COLUMNS.items():
        if column.table == "geometry" and name not in deps:
            parts = [part.removesuffix("norms") for part in name.split("_")]
            deps[name] = sorted({stream for part in parts for stream in _VECTORS.get(part, ())})
        if column.table == "steps" and name in {field.name for field in record_schema(())}:
            deps[name] = [name]
    return _lineage({name: {"trace": of} for name, of in deps.items()})


def columns_of_metric(metric: Metric) -> dict[str, Any]:
    """Columns of geometry and replays that each column of a metric's table is computed from, read from the formulas."""
    parts: dict[str, pl.Expr | None] = {"value": metric.value, "tolerance": metric.tolerance}
    parts |= {each.name: each.of for each in metric.series} | {each.name: each.value for each in metric.variants}
    found = {}
    for name, part in parts.items():
        roots = set() if part is None else set(part.meta.root_names())
        if "value" in roots:
            roots |= set(metric.columns)
        read = {r: COLUMNS[r].table for r in sorted(roots) if r in COLUMNS}
        found[name] = {
            "geometry": [r for r, table in read.items() if table in ("geometry", "path", "steps")],
            "replays": [r for r, table in read.items() if table == "replay"],
        }
    return _lineage(found)


def columns_of_verdicts(metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """An estimate is made of the values of its metric."""
    return _lineage({name: {metric: ["value"] for metric in metrics} for name in ("estimate", "worst", "status")})


def columns_of_comparison() -> dict[str, Any]:
    """Answers are verdicts."""
    same = set(ANSWER_SCHEMA) & set(VERDICT_SCHEMA)
    return _lineage({name: {"verdicts": [name]} for name in ANSWER_SCHEMA if name in same})


def _lineage(deps: Mapping[str, Mapping[str, list[str]]]) -> dict[str, Any]:
    found = {
        name: [dg.TableColumnDep(dg.AssetKey(asset), column) for asset, columns in of.items() for column in columns]
        for name, of in deps.items()
    }
    lineage = dg.TableColumnLineage({name: of for name, of in found.items() if of})
    return {"dagster/column_lineage": lineage}


def _pair_columns() -> list[dg.TableColumn]:
    return [_column(name, "int64" if name == "step" else "string", text) for name, text in _PAIR.items()]


def _of(schema: pl.Schema, texts: Mapping[str, str]) -> dg.TableSchema:
    return dg.TableSchema([_column(name, str(kind).lower(), texts[name]) for name, kind in schema.items()])


def _column(name: str, kind: str, text: str, units: Units | None = None) -> dg.TableColumn:
    said = text if units is None else f"{text} [{units}]"
    return dg.TableColumn(name, kind, said or None)
