"""The asset ``replays``: what was replayed of a run, and whether its recorded losses came back.

It reads what ``lemmata replay`` found and never runs a model. Metrics that need replayed numbers depend on it, so that
a replay makes exactly them stale.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg

import analysis.replay
import analysis.replay_columns
import analysis.replayed
from analysis.replayed import Replayed
from pipeline import checks, lineage
from pipeline.assets import REPLAYS, WHEN_INPUTS_CHANGE, Result, geometry, store
from pipeline.ranges import run_asset
from pipeline.replay_content import CODE, version
from tracer.errors import FormatError

REPEATS, CURRENT = "recorded_losses_come_back", "of_the_run_as_it_is"
_SPECS = {
    REPEATS: "H10: recorded losses and gradients, replayed before anything else, are the recorded ones bit for bit, or "
    "as near as rounding of another machine puts them. How far apart they are, σ_f, is the noise of all that is "
    "replayed.",
    CURRENT: "What was replayed is of the run as it is now. Where the run has gone on since, reference points have "
    "moved, and no metric reads what was replayed.",
}
_COLUMNS = ("table", "rows", "complete", "written", "settings")


@run_asset(
    name=REPLAYS,
    deps=[geometry],
    **lineage.explained(REPLAYS, lineage.of_replays(), analysis.replayed),
    code_version=CODE,
    kinds={"parquet"},
    automation_condition=WHEN_INPUTS_CHANGE,
    check_specs=[checks.spec(REPLAYS, name, says) for name, says in _SPECS.items()],
)
def replays(context: dg.AssetExecutionContext) -> Result:
    """Show what was replayed. Its data version is the content of that."""
    into = store(context.partition_key)
    try:
        found = Replayed(into.directory)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(version(into, into.facts().digest)),
            metadata=_page(found, into.run_id),
            check_results=replay_checks(found, into.facts().digest),
        )
    except FormatError as error:
        raise dg.Failure(str(error)) from None


def _page(found: Replayed, run_id: str) -> Mapping[str, Any]:
    index = found.index
    if index is None:
        how = f"Nothing was replayed of this run. `lemmata replay {run_id}` asks its minibatches at other points, if "
        return {"replayed": dg.MetadataValue.md(how + "they were recorded (record_batches=True).")}
    rows = [
        dg.TableRecord(
            {
                "table": name,
                "rows": found.rows(name),
                "complete": "yes" if entry["complete"] else "no: the replay was interrupted; give the command again",
                "written": _time(found.written(name)),
                "settings": ", ".join(f"{key}={value}" for key, value in entry["settings"].items()),
            }
        )
        for name, entry in index.tables.items()
    ]
    kinds = {"rows": "int"}
    schema = dg.TableSchema([dg.TableColumn(name, type=kinds.get(name, "string")) for name in _COLUMNS])
    return {
        "replayed": dg.MetadataValue.table(rows, schema),
        "σ_f": float(index.noise.get("sigma", float("nan"))),
        "recorded losses asked again": int(index.noise.get("steps", 0)),
        "workload": dg.MetadataValue.json(dict(index.workload)),
        "machine": dg.MetadataValue.json(dict(index.machine)),
        "agreement": dg.MetadataValue.json(dict(index.noise)),
        "path": dg.MetadataValue.path(found.directory),
    }


def replay_checks(found: Replayed, digest: str) -> list[dg.AssetCheckResult]:
    """Both pass only where something was replayed; a run that nobody replayed is not at fault."""
    index = found.index
    if index is None or not index.noise:
        return [_result(name, False, "NOT APPLICABLE: nothing was replayed.") for name in _SPECS]
    noise, current = index.noise, index.digest == digest
    doubt = noise.get("doubt")
    words = f"{noise['steps']} recorded losses were replayed: "
    if noise["bitwise"]:
        words += "all came back bit for bit, and their gradients too."
    else:
        words += f"{doubt}; " * bool(doubt) + (
            f"σ_f = {noise['sigma']:.3g}, beside losses of {noise['scale']:.3g}; the largest difference "
            f"{noise['largest']:.3g}; gradients differ by {noise['gradient']:.3g} of their norm in the median."
        )
    age = "It is." if current else f"The run has gone on. Replay it again: lemmata replay {index.run_id}"
    return [
        _result(REPEATS, not doubt, words, {"sigma_f": float(noise["sigma"])}),
        _result(CURRENT, current, age),
    ]


def _result(name: str, passed: bool, words: str, numbers: Mapping[str, float] | None = None) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=name, passed=passed, severity=checks.WARN, description=words, metadata=dict(numbers or {})
    )


def _time(seconds: float | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
