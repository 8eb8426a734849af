"""Verdicts as a table: a row per claim and pairing, with its reason, its numbers and what is known to bias them."""

import math
from dataclasses import asdict, replace

import numpy as np
import polars as pl

from analysis.arrays import filled, missing
from analysis.columns import AT_REFERENCE, COLUMNS, NO_LOOK_AHEAD, NO_LOSS, REFINING, REPLAY
from analysis.judging.verdict import RULE_NAMES, Evidence, judge
from analysis.metric import Bias, Caution, Claim, Metric, claim_columns
from analysis.tables import MODEL, REFERENCE, Tables, pairing_kind
from tracer.errors import UsageError

VERDICT_SCHEMA = pl.Schema(
    {
        **dict.fromkeys(
            ("run_id", "metric", "claim", "rule", "status", "reason", "pairing", "reference", "window", "block"),
            pl.String,
        ),
        **dict.fromkeys(("pairs", "undefined", "missing"), pl.Int64),
        **dict.fromkeys(("estimate", "lower", "upper", "tolerance", "null_value", "worst"), pl.Float64),
        **dict.fromkeys(("worst_step", "violations"), pl.Int64),
        "effective_samples": pl.Float64,
        **dict.fromkeys(
            (
                *("numerator", "numerator_lower", "numerator_upper"),
                *("denominator", "denominator_lower", "denominator_upper", "null_numerator"),
            ),
            pl.Float64,
        ),
        "biases": pl.String,
        **dict.fromkeys(("blocks_tested", "blocks_beyond"), pl.Int64),
        **dict.fromkeys(("fingerprint", "says", "caveat"), pl.String),
    }
)
_POINTS = {
    "previous": "previous point x_{t-1}, minibatch z_t",
    "next": "next point x_{t+1}, minibatch z_t that made the step (in-sample)",
    "reference": "reference point, minibatch z_t",
    "unpaired": "previous point x_{t-1}, minibatch z_{t-1}",
}
_OF_LOOK_AHEAD = {"loss_x", "gx_d", "gx_gx", "gx_gy", "dg_d", "dg_dg", "dg_norms"}  # of a pair with the next point
_UNPAIRED = "different minibatches; see R6 (differences of gradients of two minibatches measure noise, not the loss)"
_IN_SAMPLE = (
    "in-sample: the step was made from this minibatch, so that the pair says nothing of the population loss "
    "(R2); judged at pairing 'previous', on fresh minibatches"
)
_NOTHING = Claim(at_most=math.inf, over="on average", name="(no claim)", says="Descriptive: the metric claims nothing.")


def verdicts(metric: Metric, frames: dict[str, pl.DataFrame], empty: pl.DataFrame, tables: Tables) -> pl.DataFrame:
    """Verdicts of every claim at every pairing it is judged at; unpaired rows are listed beside them, not judged.

    Args:
        metric: with its claims.
        frames: by pairing, rows of the model in order of steps, with every column the metric reads and its value.
        empty: such a frame without rows.
        tables: of the run.
    """
    found = [
        _verdict(metric, claim, pairing, frames.get(pairing, empty), tables)
        for claim in metric.claims or (_NOTHING,)
        for pairing in _pairings(metric, claim, frames, tables)
    ]
    return pl.DataFrame(found, schema=VERDICT_SCHEMA)


def _pairings(metric: Metric, claim: Claim, frames: dict[str, pl.DataFrame], tables: Tables) -> list[str]:
    """Where the claim is judged, present or not: a pairing that is missing is a verdict that says so."""
    references = dict.fromkeys([REFERENCE + name for name in tables.facts.references])
    references |= dict.fromkeys(name for name in frames if pairing_kind(name) == "reference" and len(frames[name]))
    chosen: list[str] = []
    for kind in metric.pairings:
        if kind != "reference":
            chosen += [kind] if claim.judged_at(kind, metric.pairings) else []
        elif claim.judged_at(kind, metric.pairings) or any(pairing_kind(p) == kind for p in claim.pairings):
            named = [p for p in claim.pairings if p.startswith(REFERENCE)]
            chosen += [p for p in references if claim.judged_at(p, metric.pairings)] or named or [kind]
    return chosen + (["unpaired"] if "previous" in chosen and len(frames.get("unpaired", ())) else [])


def _verdict(metric: Metric, claim: Claim, pairing: str, rows: pl.DataFrame, tables: Tables) -> dict[str, object]:
    judged = _judged(claim, rows)
    evidence = _evidence(claim, judged, claim_columns(metric, claim))
    reason = _why_not(metric, claim, pairing, rows, evidence, tables)
    finding = judge(claim, evidence, reason)
    steps = evidence.step
    return {
        "run_id": tables.facts.run_id,
        "metric": metric.name,
        "claim": claim.name,
        "rule": RULE_NAMES[claim.over] if claim is not _NOTHING else "none",
        "pairing": pairing,
        "reference": _reference(pairing),
        "window": f"steps {steps[0]} to {steps[-1]}" if len(steps) else "no steps",
        "block": MODEL,
        "null_value": claim.null_value,
        "biases": "; ".join(_bias(bias, judged, tables) for bias in claim.biases),
        "fingerprint": metric.fingerprint,
        "says": claim.says,
        "caveat": _caveat(claim, rows, tables),
        **{name: _number(name, number) for name, number in asdict(finding).items()},
    }


def _reference(pairing: str) -> str:
    if pairing.startswith(REFERENCE):
        return f"reference point {pairing.removeprefix(REFERENCE)!r}, minibatch z_t"
    return _POINTS[pairing]


def _judged(claim: Claim, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with what the claim's rule reads under fixed names."""
    parts = {
        "quantity": pl.col("value") if claim.quantity is None else claim.quantity,
        "judged tolerance": pl.col("tolerance") if claim.tolerance is None else claim.tolerance,
        **({} if claim.numerator is None else {"numerator": claim.numerator}),
        **({} if claim.denominator is None else {"denominator": claim.denominator}),
        **{f"regressor {i}": part for i, part in enumerate(claim.regressors)},
    }
    return rows.with_columns_seq(part.cast(pl.Float64).alias(name) for name, part in parts.items())


def _evidence(claim: Claim, judged: pl.DataFrame, reads: tuple[str, ...]) -> Evidence:
    def numbers(name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return judged[name].to_numpy()  # NaN where it is missing

    quantity = judged["quantity"]
    aggregates = claim.margin is not None or claim.null_numerator is not None
    known = judged.filter(np.isfinite(numbers("quantity"))) if aggregates else judged
    ratio = claim.over == "ratio"
    found = Evidence(
        step=judged["step"].to_numpy().astype(np.int64),
        quantity=numbers("quantity"),
        tolerance=numbers("judged tolerance"),
        missing=missing(quantity),
        standstill=numbers("d_d").astype(np.float64) == 0,
        numerator=numbers("numerator") if ratio else None,
        denominator=numbers("denominator") if ratio else None,
        regressors=np.column_stack([numbers(f"regressor {i}") for i in range(len(claim.regressors))])
        if claim.regressors
        else None,
        margin=_one_number(claim.margin, known),
        null_numerator=_one_number(claim.null_numerator, known),
    )
    if not found.diverged.any():
        return found
    sound = [missing(judged[name]) | np.isfinite(filled(judged[name], 0.0)) for name in reads]
    return replace(found, sound=np.logical_and.reduce(sound))


def _one_number(formula: pl.Expr | None, rows: pl.DataFrame) -> float:
    """An aggregating expression over the rows; NaN where there is none or nothing to compute it from."""
    if formula is None:
        return math.nan
    found = rows.select_seq(number=formula.cast(pl.Float64))
    if len(found) != 1:
        raise UsageError(f"{formula} must be one number from all rows of a claim; found {len(found)}.")
    number = found.item()
    return math.nan if number is None else float(number)


def _bias(bias: Bias, judged: pl.DataFrame, tables: Tables) -> str:
    """``R7 +1.2e-05 (says)``, or why the amount is not known."""
    amount = _one_number(bias.amount, judged.filter(pl.col("quantity").is_finite()))
    if math.isfinite(amount) and len(judged):
        return f"{bias.rule} {amount:+.2g} ({bias.says})"
    reads = [n for n in dict.fromkeys(bias.amount.meta.root_names()) if n not in REFINING]  # each name once
    gone = [n for n in reads if n in judged.columns and judged[n].null_count() == len(judged)]
    why = "; ".join(f"needs {name}: {_absence(name, tables)}" for name in gone) or "no pair has what it needs"
    return f"{bias.rule} not known here ({bias.says}; {why})"


def _why_not(
    metric: Metric, claim: Claim, pairing: str, rows: pl.DataFrame, evidence: Evidence, tables: Tables
) -> str | None:
    if pairing == "unpaired":
        return _UNPAIRED
    if pairing == "next" and claim.population:
        return _IN_SAMPLE
    name = tables.facts.optimizer_class.rpartition(".")[2] or "an unknown optimizer"
    if claim.optimizers and name not in claim.optimizers:
        return f"stated for {', '.join(claim.optimizers)}; this run used {name}: {claim.optimizers_why}"
    if not len(evidence.step):
        return _no_pairs(pairing)
    if evidence.missing.all():
        gone = {n for n in rows.columns if rows[n].null_count() == len(rows)} - REFINING
        needed = claim_columns(metric, claim)
        names = [n for n in metric.columns if n in gone and n in needed] or [n for n in needed if n in gone]
        absent = "; ".join(f"needs {name}: {_absence(name, tables, pairing)}" for name in names)
        return absent or "no recorded step is of the kind that the claim is about"
    return "descriptive: the metric makes no claim" if claim is _NOTHING else None


def _no_pairs(pairing: str) -> str:
    if pairing == "reference":
        return "this run's tables have no pairs with a reference point"
    if pairing.startswith(REFERENCE):
        return f"this run's tables have no pairs with {_reference(pairing)}"
    return f"no pairs with pairing {pairing!r}: a pair needs two consecutive recorded steps"


def _absence(name: str, tables: Tables, pairing: str = "") -> str:
    if pairing_kind(pairing) == "reference" and name in AT_REFERENCE:
        gradients = "" if name == "loss_y" else " --gradients"
        options = f"--references {pairing.removeprefix(REFERENCE)}{gradients}"
        why = f"needs a replay of the minibatches at the reference point: run `lemmata replay RUN {options}`"
        return _replayable(
            COLUMNS[name].meaning, "the minibatches were not evaluated at the reference point; " + why, tables
        )
    if name in REPLAY and pairing.startswith(REFERENCE):
        options = f"--references {pairing.removeprefix(REFERENCE)} --gradients"
        return _replayable(COLUMNS[name].meaning, f"needs a replay there: run `lemmata replay RUN {options}`", tables)
    if name in REPLAY:
        return _replayable(COLUMNS[name].meaning, COLUMNS[name].absent, tables)
    if pairing == "next" and name in ("loss_x", "loss_y") and not _has_losses(tables):
        return f"{COLUMNS[name].meaning}; {NO_LOSS}"
    if pairing == "next" and name in _OF_LOOK_AHEAD:
        return f"{COLUMNS[name].meaning}; {NO_LOOK_AHEAD}"
    known = {*COLUMNS, *tables.steps.collect_schema()}
    if name not in known:
        return f"this run's tables have no such column; there are {', '.join(sorted(known))}"
    if name in COLUMNS:
        return f"{COLUMNS[name].meaning}; {COLUMNS[name].absent}"
    return "it is missing at every step"


def _has_losses(tables: Tables) -> bool:
    if "loss" not in tables.steps.collect_schema():
        return False
    return bool(tables.steps.select(pl.col("loss").is_not_null().any()).collect().item())


def _replayable(meaning: str, absent: str, tables: Tables) -> str:
    """Why a replayed number is missing, and how to get it: a run without its minibatches has to be recorded again."""
    said = f"{meaning}; {absent.replace('RUN', tables.facts.run_id)}"
    if tables.facts.has_batches is False:
        said += ", which needs the minibatches: this run was recorded without them (record_batches=True)"
    return said


def _caveat(claim: Claim, rows: pl.DataFrame, tables: Tables) -> str:
    said = [claim.caveat]
    for caution in claim.cautions:
        found = filled(rows[caution.column], caution.neutral)
        if (found != caution.neutral).any() or _in_some_groups(caution, tables):
            said.append(caution.text)
    return " ".join(part for part in said if part)


def _in_some_groups(caution: Caution, tables: Tables) -> bool:
    """Whether a group of parameters has another value than the neutral one; where they differ, theirs is null."""
    if f"{caution.column} in some groups" in tables.facts.optimizer_flags:
        return True
    groups = [n for n in tables.steps.collect_schema() if n.startswith("group") and n.endswith(f".{caution.column}")]
    if not groups:
        return False
    differs = pl.any_horizontal((pl.col(groups).cast(pl.Float64) != caution.neutral).fill_null(False).any())
    return bool(tables.steps.select(differs).collect().item())


def _number(name: str, number: object) -> object:
    """Null where there is none; the ends of an unbounded interval are infinite, nothing else is."""
    if not isinstance(number, float) or (name in ("lower", "upper") and math.isinf(number)):
        return number
    return number if math.isfinite(number) else None
