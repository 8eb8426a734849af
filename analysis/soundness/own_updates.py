"""The check that every update was the optimizer's own (H5, and H9 where a random scale is recorded)."""

from typing import Any

import polars as pl

from analysis.soundness.identities import CheckResult, Number
from analysis.tables import Tables

_c = pl.col
OWN_UPDATES = (
    "the update is the optimizer's own",
    "x_{t+1} − x_t is what the optimizer's formula makes of the recorded gradients and settings (times the random "
    "scale, where one is recorded)",
)
_RESOLVES = 0.5  # rounding may have at most this share of a step, or nothing is tested


def own_updates(tables: Tables) -> CheckResult:
    """What :mod:`analysis.vectors.dynamics` found: a slip beyond the room that rounding has is broken data.

    Unless something recorded explains it: then it is a finding about the training, and verdicts are given.
    """
    name, says = OWN_UPDATES
    reads = ("slip_slip", "slip_room", "step_step")
    there = tables.path.collect_schema()
    if not set(reads) <= set(there):
        return CheckResult(name, False, "warn", f"{says}: not tested, the tables do not have it", {"rows": 0})
    ratio, resolution = (_c("slip_slip") / _c("slip_room")).sqrt(), (_c("slip_room") / _c("step_step")).sqrt()
    scale = tables.steps.select("step", _scale(tables.steps))
    known = (
        tables.path.select("step", _c("block").cast(pl.String), *reads)
        .filter(_c("slip_slip").is_finite() & _c("slip_room").is_finite())
        .join(scale, on="step", how="left", maintain_order="left")
        .with_columns(ratio=ratio, slips=(_c("slip_slip") > _c("slip_room")), resolution=resolution)
    )
    # where rounding has as much room as the step itself, nothing is tested
    rows = known.filter(_c("slips") | (_c("resolution") < _RESOLVES))
    worst = _c("ratio") == _c("ratio").max()
    summary = rows.select(
        rows=pl.len(),
        failed=_c("slips").sum(),
        unexplained=(_c("slips") & _c("random_scale").is_null()).sum(),
        worst=_c("ratio").max(),
        step=_c("step").filter(worst).first(),
        block=_c("block").filter(worst).first(),
        relative=(_c("slip_slip") / _c("step_step")).sqrt().filter(worst).first(),
        resolution=_c("resolution").median(),
    )
    found, known_rows = pl.collect_all([summary, known.select(pl.len())])
    return _judged(tables, found.row(0, named=True), known_rows.item())


def _scale(steps: pl.LazyFrame) -> pl.Expr:
    return (_c("random_scale") if "random_scale" in steps.collect_schema() else pl.lit(None)).alias("random_scale")


def _judged(tables: Tables, found: dict[str, Any], known: int) -> CheckResult:
    name, says = OWN_UPDATES
    facts = tables.facts
    if not found["rows"]:
        lost = "the trace does not begin with the optimizer's first update, and its buffers were not recorded"
        why = facts.formula_why or ("rounding is as large as the steps" if known else lost)
        return CheckResult(name, False, "warn", f"{says}: not tested; {why}", {"rows": 0})
    numbers: dict[str, Number] = {
        "rows": int(found["rows"]),
        "rows_failed": int(found["failed"]),
        "worst_in_tolerances": found["worst"],
        "step": int(found["step"]),
        "block": str(found["block"]),
        "worst_relative_to_step": found["relative"],
        "resolution": found["resolution"],
    }
    if not found["failed"]:
        text = f"holds in {found['rows']} rows, to {found['resolution']:.2g} of the step (median room for rounding)"
        return CheckResult(name, True, "error", f"{says}: {text}", numbers)
    where = (
        f"{found['failed']} of {found['rows']} rows break it, worst at step {found['step']}, block {found['block']}: "
        f"the step is off by {found['relative']:.3g} of itself, {found['worst']:.3g} times what rounding can do"
    )
    if facts.changed_updates:
        text = (
            f"{where}. The update is not the optimizer's own formula: points were changed besides it, as recording "
            "declared or did not exclude. What the loss and its gradients say stays as it is; what is said of the "
            "optimizer's formula, its moments and its proofs does not hold for this run"
        )
        return CheckResult(name, False, "warn", f"{says}: {text}", numbers)
    if not found["unexplained"]:
        text = (
            f"{where}. A random scale is recorded there, but the step is neither the formula's nor that times the scale"
        )
        return CheckResult(name, False, "warn", f"{says}: {text}", numbers)
    text = (
        f"{where}. Either the recorded gradients, settings or points are not those of the training, or the points were "
        "changed besides the update (clamped, projected, averaged, multiplied by hand), or the optimizer began with "
        "moments of an earlier training. Record with changed_updates='record', random_scale= or branch_of= if so"
    )
    return CheckResult(name, False, "error", f"{says}: {text}", numbers)
