"""Several runs of this home on one page."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from analysis.metric import Metric
from analysis.pages.compare import Compared, compare
from analysis.proofs import proofs
from analysis.registry import metrics
from analysis.remote import Aside
from analysis.tables import TableStore
from pipeline.results import current_verdicts, proof_results, read_config
from tracer.store import home


def write_comparison(run_ids: Sequence[str], into: Path) -> Path:
    """Write the page of several runs that were computed before.

    Raises:
        FormatError: one of them has not been computed.
    """
    known = metrics()
    found = [_compared(TableStore(home.tables_root(), run_id), known) for run_id in run_ids]
    html = compare(found, {name: metric.family for name, metric in known.items()})
    with Aside(into) as aside:
        aside.write_text(html, encoding="utf-8")
    return into


def _compared(store: TableStore, known: dict[str, Metric]) -> Compared:
    steps = store.scan("steps").sort("step").collect()
    smoothness: list[float] = []
    if store.exists("metrics/smoothness"):
        fresh = store.scan("metrics/smoothness").filter(pl.col("pairing").cast(pl.String) == "previous")
        smoothness = fresh.sort("step").collect()["value"].to_list()
    return Compared(
        facts=store.facts(),
        verdicts=current_verdicts(store, known),
        findings=[finding for _, finding, _ in proof_results(store, proofs()).values()],
        rates=steps["lr"].to_list() if "lr" in steps.columns else [],
        momenta=steps["momentum"].to_list() if "momentum" in steps.columns else [],
        smoothness=smoothness,
        config=read_config(store),
    )
