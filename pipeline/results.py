"""What has been computed for a run, read back; what belongs to another content or formula is left out."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from analysis.measure import Measurement
from analysis.metric import Metric
from analysis.pages.details import Details
from analysis.pages.figures import drawable
from analysis.proving.proof import Proof
from analysis.remote import local
from analysis.replay_columns import depends_on_replay
from analysis.tables import TableStore
from pipeline.stale import current, stamp_of
from pipeline.unchanged import kept
from tracer.errors import FormatError

GATHERED = "verdicts"  # the asset with the verdicts of all metrics, and its table
DETAILS = ("windows", "blocks")
PROOFS_READ = ("loss_y",), ("reference",)  # the loss at the point that stands for the minimiser: a replay finds it
ProofResults = dict[str, tuple[Proof, dict[str, Any], pl.DataFrame]]  # name: proof, finding, lines
Results = dict[str, tuple[Metric, pl.DataFrame, pl.DataFrame]]  # name: metric, values, verdicts


def content(store: TableStore, columns: Iterable[str], pairings: Iterable[str]) -> str:
    """What identifies all that a formula over ``columns`` was computed from: the trace, and the replay if it reads it.

    Raises:
        FormatError: the geometry has not been computed, or the replay is damaged.
    """
    digest, replayed = store.facts().digest, store.replayed()
    if replayed is None or not depends_on_replay(tuple(columns), tuple(pairings)):
        return digest
    return f"{digest}+{replayed.content}"


def current_verdicts(store: TableStore, metrics: Mapping[str, Metric]) -> pl.DataFrame:
    """Verdicts of all metrics of a run, one below the other, in the order of ``metrics``.

    A metric whose last computation failed, or saw an older recording or formula, has no row here: an outdated number
    never stands beside current ones.

    Raises:
        FormatError: none of the metrics has been computed.
    """
    found = list(verdicts_of(store, metrics).values())
    if not found:
        raise FormatError(f"{store.directory}: no metric has been computed. Run `lemmata materialize {store.run_id}`.")
    return pl.concat(found, how="vertical_relaxed")


def verdicts_of(store: TableStore, metrics: Mapping[str, Metric]) -> dict[str, pl.DataFrame]:
    """Verdicts of every metric that is up to date for this run, by metric.

    Those that were gathered already are taken from there: one file is read instead of eighty.
    """
    seen: dict[str, str] = {}
    stamps = {name: current(store, name, metric.fingerprint, seen) for name, metric in metrics.items()}
    gathered = stamp_of(store, GATHERED)
    of = gathered.inputs if gathered else {}
    parts = _by_metric(store.path(GATHERED)) if gathered else {}
    return {
        name: parts[name]
        if name in parts and of.get(name) == stamp.version
        else _verdicts_in(store.path(f"verdicts/{name}"))
        for name, stamp in stamps.items()
        if stamp is not None
    }


@kept
def _by_metric(path: Path) -> dict[str, pl.DataFrame]:
    parts = _read(path).partition_by("metric", maintain_order=True)
    return {str(part["metric"][0]): part for part in parts}  # as_dict=True asks two queries a part


@kept
def _verdicts_in(path: Path) -> pl.DataFrame:
    return _read(path).drop("digest")


def _read(path: Path) -> pl.DataFrame:
    return pl.read_parquet(local(path), glob=False, hive_partitioning=False)


def measurements(store: TableStore, metrics: Mapping[str, Metric]) -> Results:
    """Metric, values and verdicts of every metric that is up to date for this run."""
    return {
        name: (metrics[name], store.scan(f"metrics/{name}").collect(), verdicts)
        for name, verdicts in verdicts_of(store, metrics).items()
    }


def write_details(store: TableStore, name: str, found: Measurement) -> dict[str, tuple[Path, int]]:
    """Keep what became of a metric in windows and of each tensor; path and rows of the tables that have any.

    A metric of which nothing was measured has neither: its verdict says what is missing.
    """
    measured = drawable(found.table)
    tables = dict(zip(DETAILS, (found.windows, found.blocks), strict=True)) if measured else {}
    for of in DETAILS:
        if of not in tables or tables[of].is_empty():
            store.path(f"{of}/{name}").unlink(missing_ok=True)  # of an earlier recording or formula
            tables.pop(of, None)
    return {of: (store.write(f"{of}/{name}", table), len(table)) for of, table in tables.items()}


def details(store: TableStore, names: Iterable[str]) -> dict[str, Details]:
    """Windows and blocks of metrics that are up to date, as :func:`measurements` names them."""
    return {
        name: Details(
            *(store.scan(f"{of}/{name}").collect() if store.exists(f"{of}/{name}") else None for of in DETAILS)
        )
        for name in names
    }


def proof_results(store: TableStore, proofs: Mapping[str, Proof]) -> ProofResults:
    """Proof, finding and lines of every proof that is up to date for this run."""
    if not (store.exists("proofs") and store.exists("proof_findings")):
        return {}
    digest = content(store, *PROOFS_READ)
    lines = store.scan("proofs").collect()
    found: ProofResults = {}
    for finding in store.scan("proof_findings").collect().to_dicts():
        proof = proofs.get(finding["proof"])
        if proof is not None and (finding["fingerprint"], finding["digest"]) == (proof.fingerprint, digest):
            found[proof.name] = proof, finding, lines.filter(pl.col("proof") == proof.name).drop("digest")
    return found


def write_config(store: TableStore, config: Mapping[str, Any]) -> None:
    """Keep what the run's owner noted beside the tables: the report must not need the recording."""
    store.write_text("config.json", json.dumps(config))


def read_config(store: TableStore) -> dict[str, Any]:
    """What the run's owner noted, empty where nothing was kept."""
    path = store.directory / "config.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
