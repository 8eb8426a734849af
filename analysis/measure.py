"""One metric over one run: its table and its verdicts."""

import math
from dataclasses import asdict, dataclass

import numpy as np
import polars as pl

from analysis.columns import COLUMNS
from analysis.metric import Claim, Metric, claim_columns
from analysis.rounding import roundoff
from analysis.tables import MODEL, Tables
from analysis.verdict import RULE_NAMES, Evidence, judge
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
        **dict.fromkeys(("fingerprint", "says", "caveat"), pl.String),
    }
)
_REFERENCE = {
    "previous": "previous point x_{t-1}, minibatch z_t",
    "next": "next point x_{t+1}, minibatch z_t",
    "reference": "reference point, minibatch z_t",
    "unpaired": "previous point x_{t-1}, minibatch z_{t-1}",
}
_UNPAIRED = "different minibatches; see R6 (differences of gradients of two minibatches measure noise, not the loss)"
_KEYS = ("pairing", "step", "block")
_NOTHING = Claim(at_most=math.inf, over="on average", name="(no claim)", says="Descriptive: the metric claims nothing.")


@dataclass(frozen=True, eq=False)
class Measurement:
    """What a metric gives on a run.

    Args:
        table: one row per pairing, step and block: ``value`` (null missing, NaN undefined), ``tolerance`` (what
            rounding alone can do to it), a column per series. A formula that reads a loss has rows of the model only.
        verdicts: one row per claim and pairing, columns as in ``VERDICT_SCHEMA``.
    """

    table: pl.DataFrame
    verdicts: pl.DataFrame


def measure(metric: Metric, tables: Tables) -> Measurement:
    """Compute the metric's table in one query and judge its claims on the whole model.

    Raises:
        UsageError: the formula cannot be computed. A missing column is no error but a verdict NOT APPLICABLE.
    """
    rows = _rows(metric, tables)
    table = rows.select("pairing", "step", "block", "value", "tolerance", *(s.name for s in metric.series))
    judged = _judged(metric, rows)
    try:
        collected, model = pl.collect_all([table, judged])
    except pl.exceptions.PolarsError as error:
        raise UsageError(f"Metric {metric.name}: {metric.value} cannot be computed: {error}") from error
    return Measurement(collected, _verdicts(metric, model, tables))


def _rows(metric: Metric, tables: Tables) -> pl.LazyFrame:
    """The geometry with what else the metric reads, its value, tolerance and series."""
    pairings = {*metric.pairings, "unpaired"}
    rows = tables.geometry.filter(pl.col("pairing").cast(pl.String).is_in(sorted(pairings)))
    if metric.reads_loss:
        rows = rows.filter(pl.col("block").cast(pl.String) == MODEL)
    rows = _joined(rows, metric.all_columns, tables)
    rows = rows.sort("pairing", "step", maintain_order=True)
    number = metric.value.cast(pl.Float64)
    tolerance = metric.tolerance if metric.tolerance is not None else pl.lit(None)
    rows = rows.with_columns(
        # an infinite value is as undefined as NaN; null stays null
        value=pl.when(number.is_infinite()).then(math.nan).otherwise(number),
        tolerance=tolerance.cast(pl.Float64),
    )
    return rows.with_columns(s.of.over("pairing", "block").alias(s.name) for s in metric.series)


def _joined(rows: pl.LazyFrame, needed: tuple[str, ...], tables: Tables) -> pl.LazyFrame:
    there = set(rows.collect_schema())
    in_path = [n for n in needed if n not in there and n in tables.path.collect_schema()]
    steps = _with_previous_rate(tables.steps)
    in_steps = [n for n in needed if n not in {*there, *in_path} and n in steps.collect_schema()]
    if in_path:
        rows = rows.join(
            tables.path.select("step", "block", *in_path), on=["step", "block"], how="left", maintain_order="left"
        )
    if in_steps:
        rows = rows.join(steps.select("step", *in_steps), on="step", how="left", maintain_order="left")
    facts = {"u_loss": roundoff(tables.facts.loss_dtype), "u_vector": roundoff(tables.facts.dtype)}
    absent = {n: None for n in needed if n not in {*there, *in_path, *in_steps, *facts}}
    return rows.with_columns(pl.lit(v, pl.Float64).alias(n) for n, v in {**facts, **absent}.items() if n not in there)


def _with_previous_rate(steps: pl.LazyFrame) -> pl.LazyFrame:
    if "lr" not in steps.collect_schema():
        return steps
    follows = pl.col("step").diff() == 1
    return steps.sort("step").with_columns(lr_previous=pl.when(follows).then(pl.col("lr").shift(1)))


def _judged(metric: Metric, rows: pl.LazyFrame) -> pl.LazyFrame:
    """The model's rows with every claim's quantity and tolerance, and the columns needed to say why one is missing."""
    claims = metric.claims or (_NOTHING,)
    parts = []
    for i, claim in enumerate(claims):
        quantity = pl.col("value") if claim.quantity is None else claim.quantity
        tolerance = pl.col("tolerance") if claim.tolerance is None else claim.tolerance
        parts += [quantity.cast(pl.Float64).alias(f"quantity {i}"), tolerance.cast(pl.Float64).alias(f"tolerance {i}")]
    # a column that is no number (a user's formula may compare words) is only looked at for being there
    reads = [pl.col(name) for name in metric.all_columns if name not in _KEYS]
    still = (pl.col("d_d") == 0).fill_null(False).alias("standstill")
    model = rows.filter(pl.col("block").cast(pl.String) == MODEL)
    return model.select(pl.col("pairing").cast(pl.String), "step", still, *parts, *reads)


def _verdicts(metric: Metric, model: pl.DataFrame, tables: Tables) -> pl.DataFrame:
    rows = []
    present = set(model["pairing"].unique())
    pairings = [*metric.pairings, *sorted(present & {"unpaired"} - set(metric.pairings))]
    for i, claim in enumerate(metric.claims or (_NOTHING,)):
        for pairing in pairings:
            chosen = model.filter(pl.col("pairing") == pairing)
            evidence = _evidence(chosen, i)
            finding = judge(claim, evidence, _why_not(metric, claim, pairing, chosen, evidence, tables))
            steps = evidence.step
            rows.append(
                {
                    "run_id": tables.facts.run_id,
                    "metric": metric.name,
                    "claim": claim.name,
                    "rule": RULE_NAMES[claim.over] if claim is not _NOTHING else "none",
                    "pairing": pairing,
                    "reference": _REFERENCE[pairing],
                    "window": f"steps {steps[0]} to {steps[-1]}" if len(steps) else "no steps",
                    "block": MODEL,
                    "null_value": claim.null_value,
                    "fingerprint": metric.fingerprint,
                    "says": claim.says,
                    "caveat": _caveat(claim, chosen),
                    **{name: _null_for_nan(number) for name, number in asdict(finding).items()},
                }
            )
    return pl.DataFrame(rows, schema=VERDICT_SCHEMA)


def _evidence(chosen: pl.DataFrame, i: int) -> Evidence:
    quantity = chosen[f"quantity {i}"]
    return Evidence(
        step=chosen["step"].cast(pl.Int64).to_numpy(),
        quantity=quantity.fill_null(math.nan).to_numpy(),
        tolerance=chosen[f"tolerance {i}"].fill_null(math.nan).to_numpy(),
        missing=quantity.is_null().to_numpy(),
        standstill=chosen["standstill"].to_numpy(),
    )


def _why_not(
    metric: Metric, claim: Claim, pairing: str, chosen: pl.DataFrame, evidence: Evidence, tables: Tables
) -> str | None:
    if pairing == "unpaired":
        return _UNPAIRED
    name = tables.facts.optimizer_class.rpartition(".")[2] or "an unknown optimizer"
    if claim.optimizers and name not in claim.optimizers:
        return f"stated for {', '.join(claim.optimizers)}; this run used {name}: {claim.optimizers_why}"
    if not len(evidence.step):
        return f"no pairs with pairing {pairing!r}: a pair needs two consecutive recorded steps"
    if evidence.missing.all():
        gone = {n for n in chosen.columns if chosen[n].null_count() == len(chosen)}
        names = [n for n in metric.columns if n in gone] or [n for n in claim_columns(metric, claim) if n in gone]
        absent = "; ".join(f"needs {name}: {_absence(name, tables)}" for name in names)
        return absent or "no pair has every column it needs"
    return "descriptive: the metric makes no claim" if claim is _NOTHING else None


def _absence(name: str, tables: Tables) -> str:
    known = {*COLUMNS, *tables.steps.collect_schema()}
    if name not in known:
        return f"this run's tables have no such column; there are {', '.join(sorted(known))}"
    if name in COLUMNS:
        return f"{COLUMNS[name].meaning}; {COLUMNS[name].absent}"
    return "it is missing at every step"


def _caveat(claim: Claim, chosen: pl.DataFrame) -> str:
    said = [claim.caveat]
    for caution in claim.cautions:
        found = chosen[caution.column].drop_nulls()
        if len(found) and (found != caution.neutral).any():
            said.append(caution.text)
    return " ".join(part for part in said if part)


def _null_for_nan(number: object) -> object:
    return None if isinstance(number, float) and not np.isfinite(number) else number
