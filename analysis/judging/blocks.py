"""Every parameter tensor judged by itself, all of them at once, with the number of tests taken into account.

A hundred tensors are a hundred tests, and some of them would be beyond the bound by chance. The p-values are adjusted
after Benjamini and Hochberg (1995), those beyond the bound and those within it apart, each side at half of 5 %: of the
tensors found beyond, 2.5 % are expected not to be, and where none is, any at all is found in at most 2.5 % of runs. So
a single tensor is decided as the model is, whose 95 % interval leaves out 2.5 % on either side.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import polars as pl

from analysis.columns import LOSSES
from analysis.judging.estimates import ends
from analysis.judging.grid import Flags, Floats, Grid
from analysis.judging.statistics import (
    CONFIDENCE,
    Interval,
    Moments,
    fieller,
    intervals,
    moments,
    t_quantile,
    trend_moments,
)
from analysis.judging.verdict import FAILS, HOLDS, INCONCLUSIVE
from analysis.metric import Claim, Metric, claim_columns
from analysis.tables import Tables

RULES = ("on average", "trend", "ratio")
LEVEL = 0.05
BLOCKS_SCHEMA = pl.Schema(
    {
        **dict.fromkeys(("claim", "pairing", "block"), pl.String),
        **dict.fromkeys(("estimate", "lower", "upper", "p_value", "adjusted"), pl.Float64),
        "status": pl.String,
    }
)
Tested = tuple[Interval, float, float]  # of one tensor, and p-values of lying beyond the bound and within it


def judged_by_block(metric: Metric, tables: Tables) -> list[Claim]:
    """The claims that are judged tensor by tensor on this run."""
    optimizer = tables.facts.optimizer_class.rpartition(".")[2]
    return [
        claim
        for claim in metric.claims
        if metric.has_blocks
        and claim.over in RULES
        and not (claim.optimizers and optimizer not in claim.optimizers)
        and not LOSSES & set(claim_columns(metric, claim))
    ]


def columns(claim: Claim) -> set[str]:
    """What :func:`blocks` reads besides the metric's value and its tolerance."""
    return {name for part in _formulas(claim).values() for name in part.meta.root_names()} - {"value", "tolerance"}


def blocks(claims: Iterable[Claim], metric: Metric, given: Grid) -> pl.DataFrame:
    """One row per claim and parameter tensor of one pairing; columns as in :data:`BLOCKS_SCHEMA`.

    ``lower`` and ``upper`` are of the tensor's own 95 % interval. ``p_value``: of an estimate as far from the bound or
    farther, to either side, if the tensor were at the bound; ``adjusted``: the same with the number of tensors taken
    into account. At most 0.05, the claim FAILS or HOLDS, by the side the estimate lies on. Both are null, and the
    tensor is not tested, where its values carry no verdict: too few effective samples, undefined values at points that
    differ, a denominator not above 0, all within rounding.

    Args:
        claims: as :func:`judged_by_block` gives them; those that are not judged at this pairing have no row.
        metric: whose claims they are.
        given: value and tolerance of the metric as columns, ``d_d``, and :func:`columns` of the claims.
    """
    here = [claim for claim in claims if claim.judged_at(given.pairing, metric.pairings)]
    here = [claim for claim in here if not (claim.population and given.pairing == "next")]
    if given.pairing == "unpaired" or not given.blocks:
        here = []
    return pl.concat([pl.DataFrame(schema=BLOCKS_SCHEMA), *(_judged(claim, given) for claim in here)])


def with_blocks(verdicts: pl.DataFrame, of_blocks: pl.DataFrame) -> pl.DataFrame:
    """``verdicts`` of one metric with the numbers of tensors that were tested, and that are beyond the bound."""
    if of_blocks.is_empty():
        return verdicts
    counts = of_blocks.group_by("claim", "pairing").agg(
        blocks_tested=pl.col("p_value").is_not_null().sum().cast(pl.Int64),
        blocks_beyond=(pl.col("status") == FAILS).sum().cast(pl.Int64),
    )
    bare = verdicts.drop("blocks_tested", "blocks_beyond")
    joined = bare.join(counts, on=["claim", "pairing"], how="left", maintain_order="left")
    return joined.select(verdicts.columns)


def _formulas(claim: Claim) -> dict[str, pl.Expr]:
    return {
        "of claim": pl.col("value") if claim.quantity is None else claim.quantity,
        "rounding": pl.col("tolerance") if claim.tolerance is None else claim.tolerance,
        **({} if claim.numerator is None else {"above": claim.numerator}),
        **({} if claim.denominator is None else {"below": claim.denominator}),
    }


def _judged(claim: Claim, given: Grid) -> pl.DataFrame:
    arrays, kept, tested = _arrays(claim, given)
    names = given.blocks
    found: list[Tested] = [_NOTHING] * len(names)
    groups: dict[bytes, list[int]] = {}  # tensors with numbers at the same steps are computed together
    everywhere = bool(kept.all())
    for tensor in np.flatnonzero(tested):
        groups.setdefault(b"" if everywhere else kept[:, tensor].tobytes(), []).append(int(tensor))
    for group in groups.values():
        at = np.ix_(np.flatnonzero(kept[:, group[0]]), np.array(group))
        stacked = arrays if everywhere else {name: of[at] for name, of in arrays.items()}
        for i, one in zip(group, _tested(claim, stacked), strict=True):
            found[i] = one
    return _decided(claim, given, found)


def _arrays(claim: Claim, given: Grid) -> tuple[dict[str, Floats], Flags, Flags]:
    """What the claim reads, shape ``(n, k)``; where all of it is a number; and the tensors that never are undefined."""
    arrays: dict[str, Floats] = {}
    for name, formula in _formulas(claim).items():
        arrays[name], missing = given.array(formula)
        if name == "of claim":
            kept, never = np.isfinite(arrays[name]), missing
        elif name != "rounding":
            kept &= np.isfinite(arrays[name])
    if kept.all():
        return arrays, kept, np.ones(kept.shape[1], np.bool_)
    moved = given.array(pl.col("d_d"))[0] != 0
    undefined = ~kept & moved & (~never if never.size else True)
    return arrays, kept, ~undefined.any(axis=0)


def _decided(claim: Claim, given: Grid, found: list[Tested]) -> pl.DataFrame:
    """The tests' p-values, adjusted for their number, on either side of the bound by itself."""
    from scipy.stats import false_discovery_control

    sides = [np.array([each[side] for each in found]) for side in (1, 2)]
    tested = np.isfinite(sides[0])
    adjusted = [np.full(len(found), np.nan) for _ in sides]
    for side, one_sided in enumerate(sides):
        if tested.any():  # twice, as there are two sides: then each is wrong in 2.5 %, as a model's interval is
            adjusted[side][tested] = false_discovery_control(np.minimum(2 * one_sided[tested], 1))
    beyond = sides[0] < sides[1]
    status = np.select([adjusted[0] <= LEVEL, adjusted[1] <= LEVEL], [FAILS, HOLDS], INCONCLUSIVE)
    table = pl.DataFrame(
        {
            "claim": [claim.name] * len(found),
            "pairing": [given.pairing] * len(found),
            "block": given.blocks,
            **{end: [float(getattr(each[0], end)) for each in found] for end in ("estimate", "lower", "upper")},
            "p_value": np.minimum(2 * np.minimum(*sides), 1),
            "adjusted": np.where(beyond, *adjusted),
            "status": status.tolist(),
        },
        schema=BLOCKS_SCHEMA,
    )
    return table.with_columns(pl.col(pl.Float64).fill_nan(None))


_NOTHING = (Interval(np.nan, np.nan, np.nan, 0.0, 0, 0, 0.0, 1.0), np.nan, np.nan)


_EACH = ("mean", "error", "effective", "memory")


def _tested(claim: Claim, of: dict[str, Floats]) -> list[Tested]:
    """Interval, p-value of lying beyond the bound and of lying within, for each column; NaN where not tested."""
    from scipy.special import stdtr

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
    beyond, within = stdtr(max(found.windows, 1), -t), stdtr(max(found.windows, 1), t)
    rounding = of["rounding"].mean(axis=0)
    rounding[np.isnan(rounding)] = np.inf  # not known everywhere: never resolved
    shown, resolved = decides, np.ones(k, bool)
    if claim.over == "ratio":
        shown, resolved = _ratios(decides, of["above"], of["below"])
    rows_of = []
    for i in range(k):
        reach = max(abs(end) for end in ends(claim, decides[i], bound))
        good = resolved[i] and decides[i].shortfall is None and reach > rounding[i]
        rows_of.append((shown[i], float(beyond[i]), float(within[i])) if good else (shown[i], np.nan, np.nan))
    return rows_of


def _ratios(decides: list[Interval], above: Floats, below: Floats) -> tuple[list[Interval], Flags]:
    """Intervals of Σ above / Σ below, and where the denominator is known to be above 0."""
    n, k = above.shape
    over, under = moments(above), moments(below)
    quantile = t_quantile(over.windows, CONFIDENCE)
    shown = []
    for i in range(k):
        one = {name: np.array([getattr(of, name)[i] for of in (over, under)]) for name in _EACH}
        pair = Moments(halves=np.stack([of.halves[:, i] for of in (over, under)], axis=1), batch=over.batch, **one)
        low, high = fieller(pair, quantile)
        estimate = pair.mean[0] / pair.mean[1] if pair.mean[1] else np.nan
        shown.append(replace(decides[i], estimate=float(estimate), lower=low, upper=high))
    certain = np.array([d.lower > 0 and d.shortfall is None for d in intervals(under, n)])
    return shown, (below > 0).all(axis=0) | certain
