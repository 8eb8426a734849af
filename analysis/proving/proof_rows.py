"""The rows a proof is evaluated on: everything known of a step side by side."""

import math
from dataclasses import dataclass

import polars as pl

from analysis.columns import GEOMETRY, PATH
from analysis.optimizers import FLAGS
from analysis.replayed import Replayed
from analysis.rounding import roundoff
from analysis.soundness.beginning import begins
from analysis.soundness.identities import TOLERANCE
from analysis.tables import MODEL, REFERENCE, Tables

PREFIXES = ("previous", "next", "reference")
_STEPS = (
    *("loss", "lr", "momentum", "dampening", "weight_decay", "betas.0", "betas.1", "eps"),
    *("clip_factor", "clip_value", "random_scale", "epoch"),
)
_c = pl.col


@dataclass(frozen=True)
class Rows:
    """``frame`` has a row per step; ``window`` says in words which steps these are."""

    frame: pl.DataFrame
    window: str


def proof_rows(tables: Tables, reference: str) -> Rows:
    """Rows of the longest stretch of consecutive steps, of the model: the columns of :mod:`analysis.proving.proof`.

    What was not recorded is null.
    """
    pairs = tables.geometry.filter(_c("block").cast(pl.String) == MODEL).with_columns(_c("pairing").cast(pl.String))
    path = tables.path.filter(_c("block").cast(pl.String) == MODEL)
    joined = path.select("step", *_or_null(path, PATH))
    for prefix in PREFIXES:
        pairing = REFERENCE + reference if prefix == "reference" else prefix
        of = pairs.filter(_c("pairing") == pairing).select("step", *_or_null(pairs, GEOMETRY, f"{prefix}."))
        joined = joined.join(of, on="step", how="left")
    joined = joined.join(tables.steps.select("step", *_or_null(tables.steps, _STEPS)), on="step", how="left")
    facts, first = tables.facts, tables.steps.select(_c("step").min())
    # the last point of a run that was cut off leads nowhere
    frame = (
        joined.sort("step")
        .filter(_c("step_step").is_not_null())
        .with_columns(
            g_g=pl.coalesce("previous.gx_gx", "reference.gx_gx", "next.gy_gy"),
            clip=_c("clip_factor").fill_null(1.0),
            u_loss=pl.lit(roundoff(facts.loss_dtype)),
            u_vector=pl.lit(roundoff(facts.dtype)),
            sigma_f=pl.lit(_noise(tables.replayed), pl.Float64),
            sums=pl.lit(TOLERANCE * math.sqrt(max(facts.parameters, 1))),
            **{flag: pl.lit(any(f.startswith(flag) for f in facts.optimizer_flags)) for flag in FLAGS},
        )
        .with_columns(begins=begins(first.collect().item(), g_g=_c("g_g"), unit=roundoff(facts.dtype)))
    )
    return _longest(frame.collect())


def _noise(replayed: Replayed | None) -> float | None:
    """σ_f where it is noise of the recorded losses, or where these stand beside replayed ones at a reference point."""
    if replayed is None or not (replayed.alike or any(name.startswith(REFERENCE) for name in replayed.tables)):
        return None
    return replayed.noise


def _or_null(table: pl.LazyFrame, names: tuple[str, ...], prefix: str = "") -> list[pl.Expr]:
    there = table.collect_schema()
    return [
        (_c(name).cast(pl.Float64) if name in there else pl.lit(None, pl.Float64)).alias(prefix + name)
        for name in names
    ]


def _longest(frame: pl.DataFrame) -> Rows:
    """No line joins two stretches: a pair is missing where a new one begins."""
    if frame.is_empty():
        return Rows(frame, "no steps")
    new = (_c("step").diff() != 1).fill_null(True) | _c("previous.d_d").is_null()
    numbered = frame.with_columns(stretch=new.cum_sum())
    sizes = numbered.group_by("stretch", maintain_order=True).len()
    longest = sizes.sort("len", descending=True, maintain_order=True)["stretch"][0]
    chosen = numbered.filter(_c("stretch") == longest).drop("stretch")
    window = f"steps {chosen['step'][0]} to {chosen['step'][-1]}"
    if len(sizes) > 1:
        window += f", the longest of {len(sizes)} stretches without a gap"
    return Rows(chosen, window)
