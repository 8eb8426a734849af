"""From the values of one run to what may be said of a claim: the rules.

Four answers: HOLDS, FAILS, INCONCLUSIVE, NOT APPLICABLE, each with its reason and its numbers. "Every step" claims are
decided pair by pair beyond rounding, all others by an interval. Undefined values (the run diverged) never let anything
hold; missing ones are counted and never taken for zero.
"""

from dataclasses import dataclass, replace

import numpy as np

from analysis.judging.estimates import Estimate, estimate
from analysis.judging.evidence import Evidence as Evidence
from analysis.judging.evidence import Flags, Floats
from analysis.metric import Claim

HOLDS, FAILS, INCONCLUSIVE, NOT_APPLICABLE = "HOLDS", "FAILS", "INCONCLUSIVE", "NOT APPLICABLE"
RULE_NAMES = {
    "every step": "P (every step)",
    "on average": "M (mean)",
    "trend": "M (trend)",
    "equivalent": "M (equivalence)",
    "ratio": "R (ratio)",
    "quantile": "X (quantile)",
    "share": "X (share)",
    "envelope": "F (envelope)",
}
RESOLVED_SHARE = 0.95
PAIRS_LEAST = 30


@dataclass(frozen=True)
class Finding:
    """A status with its reason and numbers; numbers are NaN (or None for a step) where there are none.

    ``worst`` is the quantity farthest beyond the bound in tolerances. ``numerator`` and ``denominator`` are sums.
    """

    status: str
    reason: str
    pairs: int
    undefined: int
    missing: int
    estimate: float
    lower: float
    upper: float
    tolerance: float
    worst: float
    worst_step: int | None
    violations: int | None
    effective_samples: float
    numerator: float = np.nan
    numerator_lower: float = np.nan
    numerator_upper: float = np.nan
    denominator: float = np.nan
    denominator_lower: float = np.nan
    denominator_upper: float = np.nan
    null_numerator: float = np.nan


def judge(claim: Claim, evidence: Evidence, not_applicable: str | None = None) -> Finding:
    """What the evidence says of the claim.

    ``not_applicable``: a reason known beforehand; the numbers are given all the same.
    """
    found = estimate(claim, evidence)
    finding = _numbers(claim, evidence, found)
    if not_applicable is not None:
        return replace(finding, status=NOT_APPLICABLE, reason=not_applicable)
    if finding.pairs == 0:
        where = f"none of {finding.undefined} pairs has a defined value"
        return replace(finding, status=INCONCLUSIVE, reason=where + _also(evidence))
    if claim.over == "every step":
        status, reason = _every_step(claim, evidence, finding)
    else:
        status, reason = _by_interval(claim, evidence, finding, found)
    return replace(finding, status=status, reason=reason + _also(evidence))


def _numbers(claim: Claim, evidence: Evidence, found: Estimate) -> Finding:
    defined = evidence.defined
    quantity, step = evidence.quantity[defined], evidence.step[defined]
    tolerance = evidence.tolerance[defined]
    tolerance = np.where(np.isnan(tolerance), np.inf, tolerance)  # rounding unknown: never resolved
    excess = found.excess
    beyond = excess > tolerance
    worst = _worst(excess, tolerance, beyond) if len(quantity) else None
    every_step = claim.over == "every step"
    interval = found.interval
    return Finding(
        status="",
        reason="",
        pairs=len(quantity),
        undefined=int(evidence.undefined.sum()),
        missing=int(evidence.missing.sum()),
        estimate=interval.estimate,
        lower=interval.lower,
        upper=interval.upper,
        tolerance=float(tolerance[worst] if every_step else tolerance.mean()) if worst is not None else np.nan,
        worst=float(quantity[worst]) if worst is not None else np.nan,
        worst_step=int(step[worst]) if worst is not None else None,
        violations=None if claim.over == "trend" else int(beyond.sum()),  # a trend bounds no single value
        effective_samples=interval.effective_samples,
        null_numerator=evidence.null_numerator,
        **found.sums,
    )


def _worst(excess: Floats, tolerance: Floats, beyond: Flags) -> int:
    if not beyond.any():
        return int(np.argmax(excess))
    with np.errstate(divide="ignore", invalid="ignore"):
        return int(np.argmax(np.where(beyond, excess / tolerance, -np.inf)))


def _every_step(claim: Claim, evidence: Evidence, finding: Finding) -> tuple[str, str]:
    n = finding.pairs
    if finding.violations:
        times = abs(finding.worst - claim.bound) / finding.tolerance if finding.tolerance else np.inf
        return FAILS, (
            f"{finding.violations} of {n} pairs are beyond the bound by more than rounding; worst in tolerances at "
            f"step {finding.worst_step}: {finding.worst:.6g}, past the bound by {times:.3g} times the tolerance "
            f"{finding.tolerance:.3g}"
        )
    if diverged := int(evidence.diverged.sum()):
        first = int(evidence.step[evidence.diverged][0])
        return INCONCLUSIVE, (
            f"{diverged} pairs are undefined (NaN or infinite: {evidence.why_undefined}), the first at step {first}; "
            f"no violation among the other {n}"
        )
    if n < PAIRS_LEAST:
        return INCONCLUSIVE, f"too few pairs: {n}, and at least {PAIRS_LEAST} are needed; no violation among them"
    resolved, asked = _resolved(claim, evidence), n + finding.missing
    if resolved < RESOLVED_SHARE * asked:
        if resolved >= RESOLVED_SHARE * n:
            return INCONCLUSIVE, f"measured at {n} of {asked} pairs only; no violation at those"
        return INCONCLUSIVE, (
            f"numerics: only {resolved} of {asked} pairs differ from the bound by more than rounding "
            f"(at least {RESOLVED_SHARE:.0%} are needed); no violation"
        )
    return HOLDS, f"on this trace: no violation in {n} pairs, {resolved} of them resolved beyond rounding"


def _resolved(claim: Claim, evidence: Evidence) -> int:
    distance = np.abs(evidence.quantity - claim.bound)
    with np.errstate(invalid="ignore"):
        return int(np.sum((distance > evidence.tolerance) | ((evidence.tolerance == 0) & evidence.defined)))


def _by_interval(claim: Claim, evidence: Evidence, finding: Finding, found: Estimate) -> tuple[str, str]:
    interval, what = found.interval, found.what
    if diverged := int(evidence.diverged.sum()):
        first = int(evidence.step[evidence.diverged][0])
        return INCONCLUSIVE, (
            f"the {what} over all steps is undefined: {diverged} pairs are NaN or infinite "
            f"({evidence.why_undefined}), the first at step {first}; the numbers are of the other {finding.pairs}"
        )
    if found.obstacle:
        return INCONCLUSIVE, found.obstacle
    if interval.shortfall:
        too_few = INCONCLUSIVE, f"too few effective samples: {interval.shortfall}{found.beside}"
        return _one_sided(evidence, finding, found, interval.shortfall) or too_few
    ends = f"[{interval.lower:.6g}, {interval.upper:.6g}]"
    shown = found.shown or f"{what} {interval.estimate:.6g}, 95 % interval {ends}"
    if found.resolution <= finding.tolerance:
        return INCONCLUSIVE, f"numerics: {shown} is within rounding ({finding.tolerance:.3g}) of {found.bound}"
    if found.low > 0:
        return FAILS, f"{shown} lies beyond {found.bound}{found.beside}"
    if found.high <= 0:
        return HOLDS, f"{shown} lies within {found.bound}{found.beside}"
    contains = f"{shown} contains {found.contained}"
    undecided = INCONCLUSIVE, f"statistics: {contains}{found.beside}"
    return _one_sided(evidence, finding, found, contains) or undecided


def _one_sided(evidence: Evidence, finding: Finding, found: Estimate, but: str) -> tuple[str, str] | None:
    """Values on one side of the bound put their mean there, however few of them are independent or large."""
    if not found.one_sided or found.interval.too_short:
        return None
    tolerance = evidence.tolerance[evidence.defined]
    why = f"all {found.interval.samples} values lie {{}} {found.bound}, and so does any {found.what} of them"
    why += f" (though {but})"
    if (found.excess > tolerance).all():
        return FAILS, why.format("beyond")
    if (found.excess <= 0).all() and (found.excess < -tolerance).mean() >= RESOLVED_SHARE:
        return HOLDS, why.format("within")
    return None


def _also(evidence: Evidence) -> str:
    still = int((evidence.undefined & evidence.standstill).sum())
    missing = int(evidence.missing.sum())
    parts = [f"{missing} pairs were not measured"] * bool(missing)
    parts += [f"{still} pairs stand still (x = y) and have no value"] * bool(still)
    return "".join(f"; {part}" for part in parts)
