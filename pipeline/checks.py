"""Asset checks: damaged files and broken identities block what is downstream, claims only warn."""

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl

from analysis.metric import Metric
from analysis.soundness.checks import IDENTITIES, ODDITIES, CheckResult
from pipeline.instance import PARTITIONS
from tracer.store import Trace

SOUND_FILES, UNBROKEN = "sound_files", "no_identity_is_broken"  # these two block what is downstream
ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
CURVES = ("estimate", "worst_in_tolerances")  # the UI plots every number of a check over time: only what is worth it


def spec(asset: str, name: str, description: str, *, blocking: bool = False) -> dg.AssetCheckSpec:
    """A check of one asset, evaluated per run."""
    partitions = dg.DynamicPartitionsDefinition(name=PARTITIONS)
    with warnings.catch_warnings():
        # checks per partition are a preview; without them a check shows one run and loads all
        warnings.filterwarnings("ignore", message=".*partitions_def", category=dg.PreviewWarning)
        return dg.AssetCheckSpec(
            name, asset=asset, description=description, blocking=blocking, partitions_def=partitions
        )


def sound(trace: Trace) -> dg.AssetCheckResult:
    """The result for a run whose bytes all match."""
    text = f"{trace.step_count} steps in {trace.bytes:,} bytes match their hashes."
    return dg.AssetCheckResult(check_name=SOUND_FILES, passed=True, description=text)


def damaged(text: str) -> dg.AssetCheckResult:
    """The result for a damaged run; ``text`` names the files."""
    return dg.AssetCheckResult(check_name=SOUND_FILES, passed=False, severity=ERROR, description=text)


def identity_specs() -> list[dg.AssetCheckSpec]:
    """Checks of the geometry: one blocks what is downstream where an identity is broken, the others say which and why.

    Each identity blocking by itself, Dagster's automation would wait for ever for those that cannot be tested.
    """
    whole = spec("geometry", UNBROKEN, "No identity of the trace is broken.", blocking=True)
    return [whole, *(spec("geometry", check_name(name), says) for name, says in (*IDENTITIES, *ODDITIES))]


def identities(results: Sequence[CheckResult]) -> list[dg.AssetCheckResult]:
    """What the checks of a run's geometry found."""
    return [
        _unbroken(results),
        *(
            dg.AssetCheckResult(
                check_name=check_name(result.name),
                passed=result.passed,
                severity=ERROR if result.severity == "error" else WARN,
                description=result.description,
                metadata=_plain({name: result.numbers.get(name) for name in CURVES}),
            )
            for result in results
        ),
    ]


def _unbroken(results: Sequence[CheckResult]) -> dg.AssetCheckResult:
    exact = {name for name, _ in IDENTITIES}
    broken = [result for result in results if not result.passed and result.severity == "error"]
    untested = [result for result in results if result.name in exact and not result.passed and result not in broken]
    said = "\n".join(f"{result.name}: {result.description}" for result in broken)
    holding = len(exact) - len(untested)
    return dg.AssetCheckResult(
        check_name=UNBROKEN,
        passed=not broken,
        severity=ERROR,
        description=said or f"{holding} identities hold, {len(untested)} could not be tested.",
    )


def claim_specs(metric: Metric) -> list[dg.AssetCheckSpec]:
    """One check per claim of the metric."""
    texts = [(check_name(claim.name), f"{claim.says} {claim.caveat}".strip()) for claim in metric.claims]
    return [spec(metric.name, name, text) for name, text in texts]


def check_name(name: str) -> str:
    """``name`` with underscores for what Dagster does not allow in the name of a check."""
    return re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "unnamed"


def claims(metric: Metric, verdicts: pl.DataFrame) -> list[dg.AssetCheckResult]:
    """One result per claim: passed where it HOLDS on all pairs that were recorded; else it is a finding."""
    judged = judged_rows(metric, verdicts)
    return [_claim(claim.name, judged.filter(pl.col("claim") == claim.name).to_dicts()) for claim in metric.claims]


def judged_rows(metric: Metric, verdicts: pl.DataFrame) -> pl.DataFrame:
    """Without unpaired rows, which stand beside and are never judged; every reference point is one pairing."""
    kinds = pl.col("pairing").str.split(":").list.first()
    return verdicts.filter(kinds.is_in(metric.pairings))


def _claim(claim: str, rows: Sequence[Mapping[str, Any]]) -> dg.AssetCheckResult:
    # pairs that were not recorded say nothing against what holds on those that were
    statuses = {str(row["status"]) for row in rows} - {"NOT APPLICABLE"}
    return dg.AssetCheckResult(
        check_name=check_name(claim),
        passed=statuses == {"HOLDS"},
        severity=WARN,
        description="\n".join(sentence(row) for row in rows) or "NOT APPLICABLE: no verdict was given.",
        metadata=_plain({name: rows[0].get(name) for name in CURVES}) if len(rows) == 1 else {},
    )


def sentence(row: Mapping[str, Any]) -> str:
    """A verdict in one line: what came out, why, against which points, and the numbers."""
    names = ("pairs", "undefined", "missing", "estimate", "lower", "upper")
    numbers = [f"{name} {_short(row[name])}" for name in names if row.get(name) is not None]
    return f"{row['status']}: {row['reason']} ({'; '.join((row['reference'], row['window'], ', '.join(numbers)))})"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata values Dagster can store; what is missing is left out."""
    return {name: value for name, value in row.items() if value is not None and value != ""}
