"""What the pages of the UI show: descriptions of assets, and the metadata of what was computed."""

import ast
import base64
import hashlib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import polars as pl

from analysis.measure import Measurement
from analysis.metric import Metric
from analysis.pages.svg import Drawing, standalone
from analysis.tables import MODEL, TableStore
from pipeline import lineage
from pipeline.checks import judged_rows, sentence
from tracer.store import Trace

Page = Mapping[str, Any]
SHOWN_ROWS = 10  # of a value table; the file has all
VERDICT_COLUMNS = ("claim", "status", "pairing", "estimate", "lower", "upper", "pairs")
COUNTED = {"HOLDS": "holds", "FAILS": "fails", "INCONCLUSIVE": "inconclusive", "NOT APPLICABLE": "not applicable"}


def source_version(*modules: ModuleType) -> str:
    """Code version of what these modules compute: it changes with their code, so nobody has to remember.

    Comments, docstrings and layout do not count: nothing is computed again because a sentence was mended.
    """
    return version_of("".join(_code(inspect.getsource(module)) for module in modules))


@cache
def _code(source: str) -> str:
    tree = ast.parse(source)
    for node in _statements(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """A node and every statement in it; expressions, most of a tree, have no docstring."""
    yield node
    for name in ("body", "orelse", "finalbody", "handlers", "cases"):
        inside = getattr(node, name, ())
        for each in inside if isinstance(inside, list) else ():
            yield from _statements(each)


def version_of(text: str) -> str:
    """A short hash of ``text``."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def formula(metric: Metric) -> dg.MetadataValue[Any]:
    """The metric's formula as it is shown on its page."""
    return dg.MetadataValue.md(f"```\n{metric.formula}\n```")


def of_trace(trace: Trace) -> Page:
    """Page of a recorded run."""
    page = {
        "steps": trace.step_count,
        "last step": trace.last_step,
        "parameters": trace.parameters,
        "status": trace.status,
        "damage": "none",
        "dagster/row_count": trace.step_count,
        "streams": ", ".join(trace.streams),
        "optimizer": str(trace.manifest.optimizer.get("class", "")),
        "size": trace.bytes,
        "recorded": trace.manifest.created,
        "config": dg.MetadataValue.json(dict(trace.manifest.config)),
        "path": dg.MetadataValue.path(str(trace.path)),
    }
    return {name: value for name, value in page.items() if value is not None}


def of_geometry(store: TableStore) -> Page:
    """Page of a run's geometry table."""
    everything = store.scan("geometry")
    rows = everything.filter(pl.col("block") == MODEL).collect()
    pairs = rows.group_by("pairing").len().cast({"pairing": pl.String})
    return {
        **{f"pairs, {pairing}": count for pairing, count in pairs.iter_rows()},
        "blocks": len(store.facts().blocks),
        "dagster/row_count": everything.select(pl.len()).collect().item(),
        "values": values(rows),
        **lineage.columns_of_geometry(),
        "path": dg.MetadataValue.path(str(store.path("geometry"))),
    }


def image(name: str, drawn: Drawing) -> dg.MetadataValue[Any]:
    """A figure on a page; a page is stored with every computation of it, and a line drawing is small."""
    text = base64.b64encode(standalone(drawn).encode()).decode()
    return dg.MetadataValue.md(f"![{name}](data:image/svg+xml;base64,{text})")


def of_metric(
    metric: Metric, found: Measurement, path: Path, plot: Drawing, details: Mapping[str, tuple[Path, int]]
) -> Page:
    """Page of a metric: what was claimed, what came out, the plot if there is one, and where the numbers are.

    ``details``: path and rows of its tables of windows and of blocks.
    """
    judged = judged_rows(metric, found.verdicts)
    estimates = judged["estimate"].drop_nulls()
    return {
        **({"plot": image(metric.name, plot)} if plot[0] else {}),
        **{f"{row['claim']} ({row['pairing']})": sentence(row) for row in judged.to_dicts()},
        "verdicts": verdict_records(found.verdicts, VERDICT_COLUMNS),
        "formula": formula(metric),
        **({"paper": metric.paper} if metric.paper else {}),
        **counts(judged),
        **({"estimate": estimates[0]} if len(estimates) else {}),  # a number: the UI plots it over time
        "values": values(found.table.filter(pl.col("block") == MODEL)),
        "dagster/row_count": len(found.table),
        **lineage.columns_of_metric(metric),
        "path": dg.MetadataValue.path(str(path)),
        **{f"{name}, rows": rows for name, (_, rows) in details.items()},
        **{f"{name}, path": dg.MetadataValue.path(str(of)) for name, (of, _) in details.items()},
    }


def of_verdicts(table: pl.DataFrame, path: Path, metrics: Mapping[str, Metric]) -> Page:
    """Page of all verdicts of a run."""
    shown = verdict_records(table, ("metric", *VERDICT_COLUMNS))
    return {
        "verdicts": shown,
        **counts(table),
        "dagster/row_count": len(table),
        **lineage.columns_of_verdicts(metrics),
        "path": dg.MetadataValue.path(str(path)),
    }


def of_report(path: Path, plates: Mapping[str, Drawing]) -> Page:
    """Page of a run's report, with the paper's figures of the run."""
    return {
        **{name: image(name, drawn) for name, drawn in plates.items()},
        "report": dg.MetadataValue.url(path.as_uri()),
        "path": dg.MetadataValue.path(str(path)),
        "size": path.stat().st_size,
    }


def counts(verdicts: pl.DataFrame) -> dict[str, int]:
    """How many verdicts there are of each status."""
    return {name: int((verdicts["status"] == status).sum()) for status, name in COUNTED.items()}


def verdict_records(verdicts: pl.DataFrame, columns: Sequence[str]) -> dg.TableMetadataValue:
    """Verdicts as a table on a page."""
    return _records(verdicts[list(columns)].to_dicts(), columns)


def values(table: pl.DataFrame) -> dg.TableMetadataValue:
    """The last rows of a table of the whole model; the file has all."""
    columns = [name for name in table.columns if name != "block"]
    return _records(table.tail(SHOWN_ROWS).to_dicts(), columns)


def table(rows: pl.DataFrame) -> dg.TableMetadataValue:
    """A small table as a whole."""
    return _records(rows.to_dicts(), rows.columns)


def _records(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> dg.TableMetadataValue:
    # all as text: a page's table can hold neither NaN nor null, and they are two answers
    schema = dg.TableSchema([dg.TableColumn(name) for name in columns])
    records = [dg.TableRecord({name: _text(row[name]) for name in columns}) for row in rows]
    return dg.MetadataValue.table(records, schema)


def _text(value: object) -> str:
    if value is None:
        return "missing"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
