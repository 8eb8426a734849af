"""The rows a metric is computed on: what the tables of a run say of each pair, side by side.

A row is a pairing, a step and a block. The path table and the step records join by step (and block); what none of them
has is a column of nulls, so that a formula over it is missing and not an error.
"""

import math
from collections.abc import Iterable

import polars as pl

from analysis.columns import REPLAY
from analysis.metric import Metric
from analysis.rates import OF_RATES, with_rates
from analysis.replay_columns import replay_columns
from analysis.rounding import roundoff
from analysis.tables import MODEL, PAIRINGS, REFERENCE, Tables, pairing_kind

KEYS = ("pairing", "step", "block")
START = 10  # recorded losses that say where training began: one alone is a minibatch's chance
_BEFORE = {  # of the step to x_t
    "lr_previous": "lr",
    "noise_rate_previous": "noise_rate",
    "scale_previous": "random_scale",
    "change_previous": "change",
}
_OF_THE_STEP = {  # of d, by pairing: of the step that leaves x_t, and of the one that made it
    "lr_d": ("lr", "lr_previous"),
    "noise_rate_d": ("noise_rate", "noise_rate_previous"),
    "scale_d": ("random_scale", "scale_previous"),
    "loss_change_d": ("change", "change_previous"),
}
_RATES = {"noise_rate", "noise_rate_d"}


def pairings_of(metrics: Iterable[Metric], tables: Tables) -> tuple[str, ...]:
    """The pairings to read for ``metrics``, in the order of the table's type; unpaired rows go with "previous"."""
    kinds = {kind for metric in metrics for kind in metric.pairings}
    kinds |= {"unpaired"} if "previous" in kinds else set()
    return tuple(name for name in known_pairings(tables) if pairing_kind(name) in kinds)


def known_pairings(tables: Tables) -> tuple[str, ...]:
    """Every pairing the geometry table may hold."""
    dtype = tables.geometry.collect_schema()["pairing"]
    if isinstance(dtype, pl.Enum):
        return tuple(dtype.categories)
    return (*(p for p in PAIRINGS if p != "reference"), *(REFERENCE + name for name in tables.facts.references))


def rows(tables: Tables, needed: Iterable[str], pairings: Iterable[str], model: bool) -> pl.LazyFrame:
    """Rows of ``pairings`` with the columns ``needed`` beside the keys, sorted by pairing and step.

    Args:
        tables: of one run.
        needed: columns of any table, derived ones included.
        pairings: by name.
        model: only the rows of the whole model; else every block.
    """
    table = tables.geometry
    if model:
        table = table.filter(pl.col("block") == MODEL)
    dtype = table.collect_schema()["pairing"]
    table = table.filter(pl.col("pairing").is_in(pl.Series(list(pairings), dtype=dtype).implode()))
    path = tables.path.filter(pl.col("block") == MODEL) if model else tables.path
    return joined(table, path, tables, needed).sort("pairing", "step", maintain_order=True)


def joined(table: pl.LazyFrame, path: pl.LazyFrame, tables: Tables, needed: Iterable[str]) -> pl.LazyFrame:
    """``table``, with the keys of a geometry table, and the columns ``needed``."""
    wanted = list(dict.fromkeys(name for name in needed if name not in KEYS))
    wanted += [name for parts in _OF_THE_STEP.values() for name in parts if name not in wanted]
    steps = with_previous(_with_noise_rate(tables) if _RATES.intersection(wanted) else tables.steps)
    if "coupled_decay" in wanted and "weight_decay" in steps.collect_schema():
        apart = any(flag.startswith("decoupled_weight_decay") for flag in tables.facts.optimizer_flags)
        decay = pl.lit(None, pl.Float64) if apart else pl.col("weight_decay").cast(pl.Float64)
        steps = steps.with_columns(coupled_decay=decay)
    if not set(OF_RATES).isdisjoint(wanted):
        steps = with_rates(steps)
    facts = constants(tables)
    there = set(table.collect_schema())
    in_path = [n for n in wanted if n not in there and n in path.collect_schema()]
    in_steps = [n for n in wanted if n not in {*there, *in_path, *facts} and n in steps.collect_schema()]
    table = table.select(*KEYS, *(n for n in wanted if n in there))
    if in_path:
        path = path.select("step", "block", *in_path)
        table = table.join(path, on=["step", "block"], how="left", maintain_order="left")
    if in_steps:
        table = table.join(steps.select("step", *in_steps), on="step", how="left", maintain_order="left")
    in_replay = [] if tables.replayed is None else [n for n in wanted if n in REPLAY and n not in there]
    for columns in replay_columns(tables.replayed, in_replay, tables.geometry) if tables.replayed is not None else ():
        table = table.join(columns, on=KEYS, how="left", maintain_order="left", validate="m:1")
    in_replay = [n for n in in_replay if n in table.collect_schema()]
    absent = [n for n in wanted if n not in {*there, *in_path, *in_steps, *in_replay, *facts}]
    constant = [pl.lit(value, pl.Float64).alias(name) for name, value in facts.items()]
    table = table.with_columns(*constant, *(pl.lit(None, pl.Float64).alias(name) for name in absent))
    pairing = pl.col("pairing").cast(pl.String)
    if tables.replayed is not None and not tables.replayed.alike:  # of another loss: no noise of the recorded ones
        table = table.with_columns(sigma_f=pl.when(pairing.str.starts_with(REFERENCE)).then("sigma_f"))
    return table.with_columns(
        # the step d of a pair is the one that made x_t, or for "next" the one that leaves it; x_t − x_r is no step
        pl.when(pairing == "next").then(leaves).when(pairing.is_in(["previous", "unpaired"])).then(made).alias(name)
        for name, (leaves, made) in _OF_THE_STEP.items()
        if name in wanted and name not in {*there, *in_path, *in_steps}
    )


def _with_noise_rate(tables: Tables) -> pl.LazyFrame:
    """The step records with ``noise_rate``; null for optimizers other than SGD, and where groups differ."""
    names, nesterov = set(tables.steps.collect_schema()), constants(tables)["nesterov"]
    if not {"lr", "momentum"} <= names or nesterov is None:
        return tables.steps

    def of(name: str, neutral: float) -> pl.Expr:
        return pl.col(name).cast(pl.Float64).fill_null(neutral) if name in names else pl.lit(neutral)

    # where groups differ the shared column is null; not in old traces, which have none
    kept = 1 - (pl.col("dampening").cast(pl.Float64) if "dampening" in names else pl.lit(0.0))
    momentum = pl.col("momentum").cast(pl.Float64)
    kept = pl.when(momentum == 0).then(1.0).otherwise(kept)  # torch reads dampening only with momentum
    factor = (1 + momentum if nesterov else kept) * of("clip_factor", 1.0) * of("random_scale", 1.0)
    return tables.steps.with_columns(noise_rate=pl.col("lr").cast(pl.Float64) * factor)


def constants(tables: Tables) -> dict[str, float | None]:
    """What is the same at every step of a run."""
    facts, replayed = tables.facts, tables.replayed
    nesterov = "nesterov" in facts.optimizer_flags
    return {
        "u_loss": roundoff(facts.loss_dtype),
        "u_vector": roundoff(facts.dtype),
        "nesterov": None if "nesterov in some groups" in facts.optimizer_flags else float(nesterov),
        "sigma_f": None if replayed is None else replayed.noise,
    }


def defined_or_nan(formula: pl.Expr) -> pl.Expr:
    """As double precision; an infinite value is as undefined as NaN, null stays null."""
    number = formula.cast(pl.Float64)
    return pl.when(number.is_infinite()).then(math.nan).otherwise(number)


def with_previous(steps: pl.LazyFrame) -> pl.LazyFrame:
    """The step records with what is derived from them; of the step before it is null after a gap.

    ``change`` is that of the loss over the step on its own minibatch; ``scale_least`` and ``scale_most`` are the run's,
    ``loss_start`` the mean of its first losses.
    """
    names = set(steps.collect_schema())
    if "loss" in names:
        first = pl.col("loss").cast(pl.Float64).sort_by("step").drop_nulls().head(START)
        steps = steps.with_columns(loss_start=first.mean())
    if {"loss", "loss_next"} <= names:
        steps, names = steps.with_columns(change=pl.col("loss_next") - pl.col("loss")), {*names, "change"}
    if "random_scale" in names:
        scale = pl.col("random_scale")
        steps = steps.with_columns(scale_least=scale.min(), scale_most=scale.max())
    follows = pl.col("step").diff() == 1
    return steps.sort("step").with_columns(
        *(pl.when(follows).then(pl.col(of).shift(1)).alias(name) for name, of in _BEFORE.items() if of in names),
        unbroken=pl.when((~follows).fill_null(False).cum_sum() == 0).then(1.0),
    )
