"""What each rule makes of the evidence: an estimate with its interval, and how the two stand to the bound."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from analysis.judging.envelope import envelope
from analysis.judging.evidence import Evidence, Floats
from analysis.judging.shares import quantile_interval, share_interval
from analysis.judging.statistics import Interval, RatioInterval, mean_interval, ratio_interval, trend_interval
from analysis.metric import Claim
from analysis.readable import factor


@dataclass(frozen=True)
class Estimate:
    """An estimate beside its bound.

    Args:
        interval: with its samples and batches.
        what: the name of what was estimated.
        low, high: by how much the two ends of the interval lie beyond the bound: the claim fails where ``low`` is above
            0 and holds where ``high`` is not.
        excess: by how much each defined value lies beyond the bound, shape ``(pairs,)``.
        bound: the bound in words.
        contained: what an interval contains that decides nothing.
        resolution: the farther end's distance from the bound, in the unit of the quantity; nothing is decided where
            rounding reaches that far. Infinite where rounding does not enter.
        one_sided: whether values that all lie on one side of the bound put the estimate there.
        obstacle: why nothing may be decided; empty if all is well.
        beside: what is said after the interval.
        sums: further numbers of the verdict.
        shown: the estimate with its interval in words, where they need more than two ends.
    """

    interval: Interval
    what: str
    low: float
    high: float
    excess: Floats
    bound: str
    contained: str = ""
    resolution: float = math.inf
    one_sided: bool = False
    obstacle: str = ""
    beside: str = ""
    sums: dict[str, float] = field(default_factory=dict)
    shown: str = ""


def estimate(claim: Claim, evidence: Evidence) -> Estimate:
    """The estimate that the claim's rule asks for, from the defined values."""
    return _RULES[claim.over](claim, evidence)


def _mean(claim: Claim, evidence: Evidence) -> Estimate:
    return _against_bound(claim, evidence, mean_interval(_quantity(evidence)), "mean")


def _trend(claim: Claim, evidence: Evidence) -> Estimate:
    interval = trend_interval(_quantity(evidence))
    what = "mean of the second half minus mean of the first"
    return _against_bound(claim, evidence, interval, what, one_sided=False)


def _quantile(claim: Claim, evidence: Evidence) -> Estimate:
    p = claim.at_quantile or 0.5
    return _against_bound(claim, evidence, quantile_interval(_quantity(evidence), p), f"{p:g} quantile")


def _against_bound(claim: Claim, evidence: Evidence, interval: Interval, what: str, one_sided: bool = True) -> Estimate:
    low, high = ends(claim, interval)
    return Estimate(
        interval=_shown(claim, interval),
        what=what,
        low=low,
        high=high,
        excess=claim.sign * (_quantity(evidence) - claim.bound),
        bound=f"the bound {claim.bound:g}",
        contained=f"the bound {claim.bound:g}",
        resolution=max(abs(low), abs(high)),
        one_sided=one_sided,
    )


def _shown(claim: Claim, interval: Interval) -> Interval:
    """Cut off where the quantity's range ends; what decides is the whole interval."""
    if claim.within is None:
        return interval
    lower, upper = np.clip([interval.lower, interval.upper], *claim.within).tolist()
    return replace(interval, lower=lower, upper=upper)


def _equivalent(claim: Claim, evidence: Evidence) -> Estimate:
    """Two one-sided tests: the whole interval within the margin, or the whole of it outside."""
    interval, margin = mean_interval(_quantity(evidence)), evidence.margin
    low, high = interval.lower - claim.bound, interval.upper - claim.bound
    distance = _quantity(evidence) - claim.bound
    obstacle = ""
    if not margin >= 0:
        obstacle = f"margin: {'it is not known' if math.isnan(margin) else f'{margin:.3g} is below 0'}"
    elif len(distance) and not margin > _mean_tolerance(evidence):
        obstacle = f"numerics: the margin {margin:.3g} is within rounding ({_mean_tolerance(evidence):.3g})"
    return Estimate(
        interval=interval,
        what="mean",
        low=max(low - margin, -high - margin),
        high=max(high - margin, -low - margin),
        excess=np.abs(distance) - margin,
        bound=f"{claim.bound:g} ± {margin:.3g}",
        contained=f"an end of {claim.bound:g} ± {margin:.3g}",
        one_sided=bool((distance > 0).all() or (distance < 0).all()),
        obstacle=obstacle,
    )


def _ratio(claim: Claim, evidence: Evidence) -> Estimate:
    """The sign of Σ (numerator − bound · denominator) decides, once the denominator's is known."""
    if evidence.numerator is None or evidence.denominator is None:
        raise ValueError("a ratio needs a numerator and a denominator")
    defined = evidence.defined
    b = evidence.denominator[defined]
    found = ratio_interval(evidence.numerator[defined], b, claim.bound)
    low, high = ends(claim, found.difference, 0.0)
    parts = {"numerator": found.numerator, "denominator": found.denominator}
    named = {"": "estimate", "_lower": "lower", "_upper": "upper"}
    beside = ", ".join(f"{name} {i.estimate:.4g} [{i.lower:.4g}, {i.upper:.4g}]" for name, i in parts.items())
    if not math.isnan(evidence.null_numerator):
        beside += f", numerator from noise alone {evidence.null_numerator:.4g}"
    return Estimate(
        interval=found.ratio,
        what="ratio of the sums",
        low=low,
        high=high,
        excess=claim.sign * _quantity(evidence),
        bound=f"the bound {claim.bound:g}",
        contained=f"the bound {claim.bound:g}",
        resolution=max(abs(low), abs(high)),
        one_sided=True,
        obstacle=_about_denominator(b, found.denominator, beside) if len(b) else "",
        beside=f"; {beside}",
        shown="" if math.isfinite(found.ratio.lower + found.ratio.upper) else _unbounded(claim, found),
        sums={name + end: getattr(i, of) for name, i in parts.items() for end, of in named.items()},
    )


def _unbounded(claim: Claim, found: RatioInterval) -> str:
    """A ratio of known sign that varies too much for an interval of its own; what decides is the difference."""
    of = found.difference
    return (
        f"ratio of the sums {found.ratio.estimate:.6g}, without a bounded interval, for the denominators vary too "
        f"much; mean of numerator − {claim.bound:g} · denominator {of.estimate:.6g}, 95 % interval "
        f"[{of.lower:.6g}, {of.upper:.6g}], which"
    )


def _about_denominator(b: Floats, of: Interval, beside: str) -> str:
    if (b > 0).all():  # then so is their sum, however few of them are independent
        return ""
    if of.upper < 0:
        return f"denominator: its sum is below 0, where the claim means nothing; {beside}"
    if not of.lower > 0:
        return f"denominator: its sum is not resolved from 0, so that no bounded interval holds the ratio; {beside}"
    if of.shortfall:
        return f"denominator: too few effective samples: {of.shortfall}; {beside}"
    return ""


def _share(claim: Claim, evidence: Evidence) -> Estimate:
    """Steps within rounding of zero may lie on either side: what is decided is so with all of them or none."""
    defined = evidence.defined
    quantity, tolerance = evidence.quantity[defined], _rounding(evidence)
    memory = mean_interval(quantity).memory
    surely, possibly = quantity > tolerance, quantity > -tolerance
    interval = share_interval(surely, memory=memory)
    perhaps = interval if np.array_equal(surely, possibly) else share_interval(possibly, memory=memory)
    low, high = ends(claim, replace(interval, upper=perhaps.upper))
    return Estimate(
        interval=interval,
        what="share of steps above zero",
        low=low,
        high=high,
        excess=quantity,
        bound=f"the bound {claim.bound:g}",
        contained=f"the bound {claim.bound:g}",
        obstacle=_hidden(claim, interval, perhaps, "share of steps above zero", "rounding of zero"),
    )


def _hidden(claim: Claim, sure: Interval, perhaps: Interval, what: str, of: str, unit: float = 1.0) -> str:
    """What to say where the sure events alone would decide, and those that rounding may hide undo it."""
    low, high = ends(claim, sure)
    whole_low, whole_high = ends(claim, replace(sure, upper=perhaps.upper))
    if not sure.shortfall and ((low > 0) != (whole_low > 0) or (high <= 0) != (whole_high <= 0)):
        return (
            f"numerics: {100 * unit * (perhaps.estimate - sure.estimate):.3g} % of the steps are within {of}; without "
            f"them the {what} has the 95 % interval [{sure.lower:.6g}, {sure.upper:.6g}], with them "
            f"[{perhaps.lower:.6g}, {perhaps.upper:.6g}]"
        )
    return ""


def _envelope(claim: Claim, evidence: Evidence) -> Estimate:
    """How often the second half lies above the envelope of the first, in units of the nominal share."""
    p, defined = claim.at_quantile or 0.5, evidence.defined
    if evidence.regressors is None:
        raise ValueError("an envelope needs regressors")
    quantity, tolerance = evidence.quantity[defined], _rounding(evidence)
    nothing = Estimate(mean_interval(quantity), "", math.nan, math.nan, quantity, "")
    if len(quantity) < 2:
        few = f"too few effective samples: {nothing.interval.shortfall}"
        return replace(nothing, interval=replace(nothing.interval, estimate=math.nan), obstacle=few)
    found = envelope(quantity, evidence.regressors[defined], tolerance, p)
    low, high = ends(claim, replace(found.rate, upper=found.perhaps.upper))
    what = f"share of the second half above the envelope, over the nominal {1 - p:.3g}"
    coarse = "rounding of the envelope, a coarse one,"
    terms = ["", *(f" · {factor(part)}" for part in claim.regressors)]
    fitted = " + ".join(
        f"{c:.4g} [{lower:.4g}, {upper:.4g}]{term}"
        for c, lower, upper, term in zip(found.coefficients, found.lower, found.upper, terms, strict=True)
    )
    return Estimate(
        interval=found.rate,
        what=what,
        low=low,
        high=high,
        excess=found.above,
        bound=f"{claim.bound:g} times the nominal share",
        contained=f"{claim.bound:g} times the nominal share",
        obstacle=_hidden(claim, found.rate, found.perhaps, f"{what},", coarse, 1 - p),
        beside=f"; envelope of the first half: {fitted}",
        shown=f"{what}: {found.rate.estimate:.6g}, 95 % interval [{found.rate.lower:.6g}, {found.rate.upper:.6g}]",
    )


def ends(claim: Claim, interval: Interval, bound: float | None = None) -> tuple[float, float]:
    """The ends of the interval, measured beyond the bound, the nearer one first."""
    at = claim.bound if bound is None else bound
    low, high = sorted(claim.sign * (end - at) for end in (interval.lower, interval.upper))
    return low, high


def _quantity(evidence: Evidence) -> Floats:
    return evidence.quantity[evidence.defined]


def _mean_tolerance(evidence: Evidence) -> float:
    return float(_rounding(evidence).mean())


def _rounding(evidence: Evidence) -> Floats:
    """Of the defined values; infinite where it is not known, which resolves nothing."""
    tolerance = evidence.tolerance[evidence.defined]
    return np.where(np.isnan(tolerance), np.inf, tolerance)


_RULES: dict[str, Callable[[Claim, Evidence], Estimate]] = {
    "every step": _mean,
    "on average": _mean,
    "trend": _trend,
    "ratio": _ratio,
    "quantile": _quantile,
    "equivalent": _equivalent,
    "share": _share,
    "envelope": _envelope,
}
