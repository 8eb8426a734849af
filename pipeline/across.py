"""All runs of this home, read at once: what the asset ``comparison`` compares, and what keeps a run out of it."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import polars as pl

from analysis.metric import Metric
from analysis.pages.across import (
    ANSWER_SCHEMA,
    CURRENT,
    NOT_COMPUTED,
    OUTDATED,
    RUN_SCHEMA,
    UNREADABLE,
    VERDICT_COLUMNS,
    Across,
    answers,
    second_half,
    tally,
)
from analysis.pages.compare import optimizer
from analysis.proving.proof import Proof
from analysis.tables import TableStore
from tracer.errors import FormatError
from tracer.store import Trace, home, runs

_FINDINGS = pl.Schema(dict.fromkeys(("run_id", "proof", "status", "reason", "fingerprint"), pl.String))
_VERDICTS = pl.Schema(
    {
        **dict.fromkeys((*VERDICT_COLUMNS, "fingerprint"), pl.String),
        **dict.fromkeys(("estimate", "lower", "upper"), pl.Float64),
    }
)
_NUMBERS = ("lr", "momentum")
_SUMMARY = pl.Schema({"run_id": pl.String, "steps": pl.Int64, "lr": pl.Float64, "momentum": pl.Float64})
_SMOOTHNESS = pl.Schema({"run_id": pl.String, "smoothness_median": pl.Float64, "smoothness_largest": pl.Float64})
_NAMED_MOST = 4
Read = Callable[[pl.LazyFrame, str], pl.LazyFrame]


def gather(metrics: Mapping[str, Metric], proofs: Mapping[str, Proof]) -> Across:
    """Read every run of this home, computed or not; one that cannot be read is a row that says why.

    Tables are scanned lazily: of four small files per run the columns that are needed. What belongs to another formula
    is left out.
    """
    names = sorted({path.name for path in runs(home.runs_root())} | set(_with_tables(home.tables_root())))
    stores = {name: TableStore(home.tables_root(), name) for name in names}
    unreadable: dict[str, str] = {}
    verdicts = _together(stores, "verdicts", _verdicts, _VERDICTS, unreadable)
    steps = _together(stores, "steps", _steps, _SUMMARY, unreadable)
    smoothness = _together(stores, "metrics/smoothness", _smoothness, _SMOOTHNESS, unreadable)
    findings = _together(stores, "proof_findings", _findings, _FINDINGS, unreadable)
    current = _of_these(verdicts, "metric", metrics)
    answered = answers(current.lazy().select(VERDICT_COLUMNS)).collect()
    there = {(run_id, metric) for run_id, metric in current.select("run_id", "metric").unique().iter_rows()}
    counted = dict(steps.select("run_id", "steps").iter_rows())
    momenta = dict(steps.select("run_id", "momentum").iter_rows())
    rows = []
    for name in names:
        missing = [metric for metric in metrics if (name, metric) not in there]
        state, why = _state(stores[name], missing, len(metrics), counted.get(name), unreadable.get(name))
        rows.append({"run_id": name, "state": state, "why": why, **_facts(stores[name], momenta.get(name))})
    smoothness = smoothness.filter(pl.col("run_id").is_in([run_id for run_id, m in there if m == "smoothness"]))
    known = pl.DataFrame(rows, schema={name: RUN_SCHEMA[name] for name in _OF_RUN})
    for table in (steps, smoothness, tally(answered)):
        known = known.join(table, on="run_id", how="left", maintain_order="left")
    return Across(
        runs=known.select(list(RUN_SCHEMA)).cast(RUN_SCHEMA),
        answers=answered.cast(ANSWER_SCHEMA),
        findings=_of_these(findings, "proof", proofs).drop("fingerprint"),
    )


_OF_RUN = ("run_id", "state", "why", "optimizer", "parameters")


def version(found: Across) -> str:
    """Changes whenever the comparison would: a hash of everything it shows."""
    state = hashlib.sha256()
    for table in (found.runs, found.answers, found.findings):
        state.update(table.write_ndjson().encode())
    return state.hexdigest()[:32]


def _together(
    stores: Mapping[str, TableStore], table: str, read: Read, schema: pl.Schema, unreadable: dict[str, str]
) -> pl.DataFrame:
    """The same table of all runs that have it, in one go; runs whose file is damaged are set aside with the reason."""
    empty = pl.LazyFrame(schema=schema)
    try:
        frames = [read(store.scan(table), name) for name, store in stores.items() if store.exists(table)]
        return pl.concat([empty.collect(), *(frame.collect() for frame in frames)])  # one plan of 200 files is slower
    except (pl.exceptions.PolarsError, OSError):
        pass  # at least one of them cannot be read: one by one, to find it
    good = []
    for name, store in stores.items():
        if store.exists(table):
            try:
                good.append(pl.concat([empty, read(store.scan(table), name)]).collect())
            except (pl.exceptions.PolarsError, OSError) as error:
                said = str(error).splitlines()[0]
                unreadable[name] = f"{store.path(table)}: {said} Compute it again: lemmata materialize {name}"
    return pl.concat([empty.collect(), *good])


def _verdicts(frame: pl.LazyFrame, run_id: str) -> pl.LazyFrame:
    # by the directory's name: a table may have been copied under another
    return frame.select(pl.lit(run_id).alias("run_id"), *(pl.col(n).cast(t) for n, t in list(_VERDICTS.items())[1:]))


def _steps(frame: pl.LazyFrame, run_id: str) -> pl.LazyFrame:
    there = frame.collect_schema().names()
    numbers = [
        second_half(pl.col(name).drop_nulls()).median().cast(pl.Float64)
        if name in there
        else pl.lit(None, pl.Float64).alias(name)
        for name in _NUMBERS
    ]
    return frame.select(pl.lit(run_id).alias("run_id"), pl.len().cast(pl.Int64).alias("steps"), *numbers)


def _smoothness(frame: pl.LazyFrame, run_id: str) -> pl.LazyFrame:
    fresh = frame.filter(pl.col("pairing").cast(pl.String) == "previous").sort("step").select("value")
    half = second_half(pl.col("value"))
    half = half.filter(half.is_finite() & (half > 0))
    return fresh.select(pl.lit(run_id).alias("run_id"), smoothness_median=half.median(), smoothness_largest=half.max())


def _findings(frame: pl.LazyFrame, run_id: str) -> pl.LazyFrame:
    return frame.select(pl.lit(run_id).alias("run_id"), "proof", "status", "reason", "fingerprint")


def _of_these(found: pl.DataFrame, kind: str, known: Mapping[str, Metric] | Mapping[str, Proof]) -> pl.DataFrame:
    """Rows whose formula is the one of today."""
    names, fingerprints = [*known], [each.fingerprint for each in known.values()]
    today = pl.DataFrame(
        {kind: names, "fingerprint": fingerprints}, schema=dict.fromkeys((kind, "fingerprint"), pl.String)
    )
    return found.join(today, on=[kind, "fingerprint"], how="semi", maintain_order="left")


def _state(store: TableStore, missing: list[str], of: int, steps: int | None, damage: str | None) -> tuple[str, str]:
    """Whether a run stands in the comparison with everything; if not, why, and what to do."""
    run_id = store.run_id
    compute = f"Compute it: lemmata materialize {run_id}"
    if damage:
        return UNREADABLE, damage
    try:
        trace = Trace(home.runs_root() / run_id) if (home.runs_root() / run_id).is_dir() else None
        recorded = None if trace is None else trace.step_count
        recording = trace is not None and trace.status == "recording"
    except FormatError as error:
        return UNREADABLE, f"{error} See: lemmata verify {run_id}"
    if not store.exists("verdicts"):
        return NOT_COMPUTED, "It is still being recorded." if recording else compute
    if recorded is not None and steps is not None and recorded != steps:
        return OUTDATED, f"{recorded} steps are recorded and {steps} were computed. {compute}"
    if missing:
        named = ", ".join(missing[:_NAMED_MOST]) + (
            f" and {len(missing) - _NAMED_MOST} more" * (len(missing) > _NAMED_MOST)
        )
        return OUTDATED, f"{len(missing)} of {of} metrics are new, changed or failed: {named}. {compute}"
    return CURRENT, ""


def _facts(store: TableStore, momentum: float | None) -> dict[str, object]:
    try:
        facts = store.facts()
    except FormatError:
        return {"optimizer": None, "parameters": None}
    return {"optimizer": optimizer(facts, momentum), "parameters": facts.parameters}


def _with_tables(root: Path) -> Iterable[str]:
    """Runs that were computed once; the recording may be elsewhere by now."""
    if not root.is_dir():
        return []
    names = [entry.name for entry in root.iterdir() if (entry / "facts.json").is_file()]
    return [name for name in names if home.RUN_ID.fullmatch(name) and ".." not in name]
