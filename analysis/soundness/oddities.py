"""What looks odd in a trace though its data are sound: findings, never errors."""

from collections.abc import Iterator

import polars as pl

from analysis.rounding import LOSS_ERRORS, roundoff
from analysis.soundness.identities import CheckResult, Number
from analysis.tables import MODEL, REFERENCE, Tables

_c = pl.col
ODDITIES: tuple[tuple[str, str], ...] = (
    ("finite", "Every recorded number is finite."),
    ("no gaps", "No step between the first and the last is left out."),
    ("one minibatch, one loss", "Where two steps in a row have the same minibatch, its loss at a point is one number."),
)
"""Name and statement of each check whose failure is a finding about the run."""

_NUMBERS = ("d_d", "dg_dg", "gx_gx", "gy_gy", "gx_d", "gy_d", "dg_d", "gx_gy", "loss_x", "loss_y")


def oddities(tables: Tables) -> Iterator[CheckResult]:
    """The checks of :data:`ODDITIES`."""
    yield _finite(tables)
    yield _no_gaps(tables)
    yield _one_loss(tables)


def _finite(tables: Tables) -> CheckResult:
    odd = ~pl.all_horizontal(pl.col(n).is_finite().fill_null(True) for n in _NUMBERS)
    # a reference point that is not finite (the last one of a run that diverged) says nothing of the step
    pairing = pl.col("pairing").cast(pl.String)
    own = tables.geometry.filter((pairing != "next") & ~pairing.str.starts_with(REFERENCE))
    pairs = own.filter((pl.col("block").cast(pl.String) == MODEL) & odd).select("step")
    steps = tables.steps.filter(~pl.col("loss").cast(pl.Float64).is_finite().fill_null(True)).select("step")
    bad = pl.concat([pairs, steps]).unique().sort("step").collect()["step"]
    numbers: dict[str, Number] = {"steps_not_finite": len(bad)}
    if bad.is_empty():
        return CheckResult("finite", True, "warn", "every recorded number is finite", numbers)
    text = f"{len(bad)} steps have numbers that are NaN or infinite, the first at step {bad[0]}: the run diverged there"
    return CheckResult("finite", False, "warn", text, numbers | {"first_step": bad[0]})


def _no_gaps(tables: Tables) -> CheckResult:
    steps = tables.steps.select("step").sort("step").collect()["step"]
    if len(steps) < 2:
        found: dict[str, Number] = {"steps": len(steps)}
        return CheckResult("no gaps", False, "warn", f"{len(steps)} recorded steps: there is no pair to measure", found)
    stride = steps.diff().drop_nulls()
    after = steps.gather((stride != 1).arg_true())
    numbers: dict[str, Number] = {
        "steps": len(steps),
        "first_step": steps[0],
        "last_step": steps[-1],
        "gaps": len(after),
        "steps_left_out": int((stride - 1).sum()),
    }
    if after.is_empty():
        return CheckResult("no gaps", True, "warn", f"steps {steps[0]} to {steps[-1]} are all there", numbers)
    numbers |= {"first_gap_after_step": after[0], "largest_gap": max(stride.to_list())}
    text = (
        f"{len(after)} gaps leave out {numbers['steps_left_out']} steps, the first after step {after[0]}. No pair "
        "crosses a gap. With a plan that records every n-th step or bursts this is as planned; otherwise data are lost"
    )
    return CheckResult("no gaps", False, "warn", text, numbers)


def _one_loss(tables: Tables) -> CheckResult:
    """Telescoping (H11): on one minibatch, the loss at x_t is the same whether x_t is reached or left."""
    name, says = ODDITIES[2]
    names = ("step", "batch", "loss", "loss_previous")
    there = tables.steps.collect_schema()
    steps = tables.steps.select((_c(n) if n in there else pl.lit(None).alias(n)) for n in names).sort("step")
    same = (_c("step").diff() == 1) & (_c("batch").diff() == 0)
    change = (_c("loss_previous") - _c("loss").shift(1)).cast(pl.Float64).abs()
    allowed = LOSS_ERRORS * roundoff(tables.facts.loss_dtype) * _c("loss").shift(1).cast(pl.Float64).abs()
    rows = steps.with_columns(change=change, allowed=allowed).filter(same & change.is_finite()).collect()
    off = rows.filter(_c("change") > _c("allowed"))
    numbers: dict[str, Number] = {"steps": len(rows), "steps_off": len(off)}
    if rows.is_empty():
        text = "no two steps in a row with the same minibatch have their losses recorded, so none differ"
        return CheckResult(name, True, "warn", text, numbers)
    if off.is_empty():
        return CheckResult(name, True, "warn", f"{says} It is, in {len(rows)} steps", numbers)
    text = (
        f"{says} In {len(off)} of {len(rows)} it is not, first at step {off['step'][0]}: the loss is random beyond its "
        "minibatch (dropout), or steps that have the same number of a minibatch do not have the same minibatch"
    )
    return CheckResult(name, False, "warn", text, numbers | {"first_step": off["step"][0]})
