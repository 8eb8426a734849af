"""Every parameter tensor judged by itself, all of them at once, with the number of tests taken into account.

A hundred tensors are a hundred tests, and five of them would be beyond the bound by chance. The p-values are adjusted
after Benjamini and Hochberg (1995): of the tensors found beyond, 5 % are expected not to be, and where none is, any
at all is found in at most 5 % of runs.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import stats

from analysis.columns import LOSSES
from analysis.estimates import ends
from analysis.metric import Claim, Metric, claim_columns
from analysis.rows import defined_or_nan, pairings_of, rows
from analysis.statistics import CONFIDENCE, Interval, Moments, fieller, intervals, moments, t_quantile, trend_moments
from analysis.tables import MODEL, Tables
from analysis.verdict import FAILS, HOLDS, INCONCLUSIVE

RULES = ("on average", "trend", "ratio")
LEVEL = 0.05
BLOCKS_SCHEMA = pl.Schema(
    {
        **dict.fromkeys(("claim", "pairing", "block"), pl.String),
        **dict.fromkeys(("estimate", "lower", "upper", "p_value", "adjusted"), pl.Float64),
        "status": pl.String,
    }
)
Floats = npt.NDArray[np.float64]


def blocks(metric: Metric, tables: Tables) -> pl.DataFrame:
    """One row per claim by mean, trend or ratio, pairing and parameter tensor; columns as in :data:`BLOCKS_SCHEMA`.

    ``lower`` and ``upper`` are of the tensor's own 95 % interval. ``p_value``: of an estimate as far beyond the bound
    or farther if the tensor were at the bound; ``adjusted`` is at most 0.05 where the claim FAILS. It HOLDS where the
    same is true of the other side. Both are null, and the tensor is not tested, where its values carry no verdict: too
    few effective samples, undefined values at points that differ, a denominator not above 0, all within rounding.

    It reads every block of the tables: seconds on a large run, so that it is computed where it is asked for.
    """
    claims = [claim for claim in metric.claims if _has_blocks(metric, claim, tables)]
    if not claims:
        return pl.DataFrame(schema=BLOCKS_SCHEMA)
    found = rows(tables, {*metric.all_columns, "d_d"}, pairings_of([metric], tables), model=False)
    found = found.filter(pl.col("block") != MODEL, pl.col("pairing").cast(pl.String) != "unpaired")
    value = defined_or_nan(metric.value)
    tolerance = pl.lit(None) if metric.tolerance is None else metric.tolerance
    table = found.with_columns(value=value, tolerance=tolerance.cast(pl.Float64)).collect()
    parts = [pl.DataFrame(schema=BLOCKS_SCHEMA)]
    for part in table.partition_by("pairing", maintain_order=True):
        pairing = str(part["pairing"][0])
        here = [c for c in claims if c.judged_at(pairing, metric.pairings) and not (c.population and pairing == "next")]
        parts += [_judged(claim, pairing, part) for claim in here]
    return pl.concat(parts)


def with_blocks(verdicts: pl.DataFrame, of_blocks: pl.DataFrame) -> pl.DataFrame:
    """``verdicts`` of one metric with the numbers of tensors that were tested, and that are beyond the bound."""
    counts = of_blocks.group_by("claim", "pairing").agg(
        blocks_tested=pl.col("p_value").is_not_null().sum().cast(pl.Int64),
        blocks_beyond=(pl.col("status") == FAILS).sum().cast(pl.Int64),
    )
    bare = verdicts.drop("blocks_tested", "blocks_beyond")
    joined = bare.join(counts, on=["claim", "pairing"], how="left", maintain_order="left")
    return joined.select(verdicts.columns)


def _has_blocks(metric: Metric, claim: Claim, tables: Tables) -> bool:
    optimizer = tables.facts.optimizer_class.rpartition(".")[2]
    stated = not claim.optimizers or optimizer in claim.optimizers
    return metric.has_blocks and claim.over in RULES and stated and not LOSSES & set(claim_columns(metric, claim))


def _judged(claim: Claim, pairing: str, part: pl.DataFrame) -> pl.DataFrame:
    parts = {
        "of claim": pl.col("value") if claim.quantity is None else claim.quantity,
        "rounding": pl.col("tolerance") if claim.tolerance is None else claim.tolerance,
        **({} if claim.numerator is None else {"above": claim.numerator}),
        **({} if claim.denominator is None else {"below": claim.denominator}),
    }
    part = part.select("step", "block", "d_d", *(e.cast(pl.Float64).alias(name) for name, e in parts.items()))
    wide = part.sort("block", "step")
    names = wide["block"].unique(maintain_order=True).cast(pl.String).to_list()
    split = np.flatnonzero(np.diff(wide["block"].to_physical().to_numpy())) + 1
    arrays = {n: np.split(wide[n].fill_null(np.nan).to_numpy(), split) for n in ("d_d", *parts)}
    missing = np.split(wide["of claim"].is_null().to_numpy(), split)
    rows_of: list[tuple[Interval, float, float]] = [_NOTHING] * len(names)
    groups: dict[bytes, list[int]] = {}  # tensors with numbers at the same steps are computed together
    kept = []
    for i in range(len(names)):
        there = np.isfinite(arrays["of claim"][i])
        for name in ("above", "below") if claim.over == "ratio" else ():
            there &= np.isfinite(arrays[name][i])
        kept.append(there)
        if not (~there & ~missing[i] & (arrays["d_d"][i] != 0)).any():
            groups.setdefault(there.tobytes(), []).append(i)
    for group in groups.values():
        there = kept[group[0]]
        stacked = {n: np.column_stack([arrays[n][i][there] for i in group]) for n in parts}
        for i, one in zip(group, _tested(claim, stacked), strict=True):
            rows_of[i] = one
    beyond, within = (np.array([row[side] for row in rows_of]) for side in (1, 2))
    tested = np.isfinite(beyond)
    adjusted, other = np.full(len(names), np.nan), np.full(len(names), np.nan)
    if tested.any():
        adjusted[tested] = stats.false_discovery_control(beyond[tested])
        other[tested] = stats.false_discovery_control(within[tested])
    status = np.select([adjusted <= LEVEL, other <= LEVEL], [FAILS, HOLDS], INCONCLUSIVE)
    table = pl.DataFrame(
        {
            "claim": [claim.name] * len(names),
            "pairing": [pairing] * len(names),
            "block": names,
            **{end: [float(getattr(row[0], end)) for row in rows_of] for end in ("estimate", "lower", "upper")},
            "p_value": beyond,
            "adjusted": adjusted,
            "status": status.tolist(),
        },
        schema=BLOCKS_SCHEMA,
    )
    return table.with_columns(pl.col(pl.Float64).fill_nan(None))


_NOTHING = (Interval(np.nan, np.nan, np.nan, 0.0, 0, 0, 0.0, 1.0), np.nan, np.nan)


def _tested(claim: Claim, of: dict[str, Floats]) -> list[tuple[Interval, float, float]]:
    """Interval, p-value of lying beyond the bound and of lying within, for each column; NaN where not tested."""
    n, k = of["of claim"].shape
    if n == 0:
        return [_NOTHING] * k
    found = trend_moments(of["of claim"]) if claim.over == "trend" else moments(of["of claim"])
    decides = intervals(found, n)
    bound = 0.0 if claim.over == "ratio" else claim.bound
    excess = claim.sign * (found.mean - bound)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(found.error > 0, excess / found.error, np.sign(excess) * np.inf)
    t = np.where((found.error == 0) & (excess == 0), -np.inf, t)  # exactly at the bound is within it
    beyond, within = stats.t.sf(t, max(found.windows, 1)), stats.t.cdf(t, max(found.windows, 1))
    rounding = np.where(np.isnan(of["rounding"]), np.inf, of["rounding"]).mean(axis=0)
    shown, resolved = decides, np.ones(k, bool)
    if claim.over == "ratio":
        shown, resolved = _ratios(decides, of["above"], of["below"])
    rows_of = []
    for i in range(k):
        reach = max(abs(end) for end in ends(claim, decides[i], bound))
        good = resolved[i] and decides[i].shortfall is None and reach > rounding[i]
        rows_of.append((shown[i], float(beyond[i]), float(within[i])) if good else (shown[i], np.nan, np.nan))
    return rows_of


def _ratios(decides: list[Interval], above: Floats, below: Floats) -> tuple[list[Interval], npt.NDArray[np.bool_]]:
    """Intervals of Σ above / Σ below, and where the denominator is known to be above 0."""
    n, k = above.shape
    of = moments(np.column_stack([above, below]))
    quantile = t_quantile(of.windows, CONFIDENCE)
    shown = []
    for i in range(k):
        two = [i, k + i]
        pair = Moments(of.mean[two], of.error[two], of.halves[:, two], of.effective[two], of.memory[two], of.batch)
        low, high = fieller(pair, quantile)
        estimate = pair.mean[0] / pair.mean[1] if pair.mean[1] else np.nan
        shown.append(replace(decides[i], estimate=float(estimate), lower=low, upper=high))
    denominators = intervals(of, n)[k:]
    certain = np.array([d.lower > 0 and d.shortfall is None for d in denominators])
    return shown, (below > 0).all(axis=0) | certain
