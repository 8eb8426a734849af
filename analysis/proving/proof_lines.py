"""One line of a proof on the rows of one run: is it true, and by how much?"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from analysis.judging.statistics import mean_interval
from analysis.judging.verdict import FAILS, HOLDS, INCONCLUSIVE
from analysis.proving.proof import Line

Floats = npt.NDArray[np.float64]
SIGN = {"=": "=", "<=": "≤"}
_NOT = {"=": "≠", "<=": ">"}
_CONFIDENT = 1.96  # standard errors


def judge_line(line: Line, frame: pl.DataFrame) -> dict[str, Any]:
    """Status, reason and numbers of a line on ``frame``, a row per step; the names are those of a table of lines."""
    judge = {"run": _run, "sum": _sum, "mean": _mean, "each step": _each_step}[line.over]
    return judge(line, frame)


def nothing(status: str, reason: str) -> dict[str, Any]:
    """A line without numbers."""
    numbers = ("left", "right", "slack", "relative_slack", "tolerance", "lower", "upper", "worst", "worst_step")
    counts = dict.fromkeys(("steps", "missing", "undefined", "violations"), 0)
    return {"status": status, "reason": reason, **dict.fromkeys(numbers), **counts}


@dataclass(frozen=True)
class _Values:
    """Row by row, where nothing is missing or undefined."""

    step: npt.NDArray[np.int64]
    left: Floats
    right: Floats
    tolerance: Floats
    weight: Floats
    missing: int
    undefined: int

    def excess(self, relation: str) -> Floats:
        """How far the line is from being true."""
        return np.abs(self.left - self.right) if relation == "=" else self.left - self.right


def _values(line: Line, frame: pl.DataFrame) -> _Values:
    weight = pl.lit(1.0) if line.weight is None else line.weight
    parts = {"left": line.left, "right": line.right, "tolerance": line.tolerance, "weight": weight}
    rows = frame.select("step", **{name: part.cast(pl.Float64) for name, part in parts.items()})
    if line.second_half:
        rows = rows.tail(len(rows) - len(rows) // 2)
    whole = rows.drop_nulls()
    sound = whole.filter(pl.all_horizontal(pl.col(list(parts)).is_finite()))
    numbers = {name: sound[name].to_numpy() for name in parts}
    return _Values(
        sound["step"].to_numpy(), **numbers, missing=len(rows) - len(whole), undefined=len(whole) - len(sound)
    )


def _summary(line: Line, of: _Values, left: float, right: float) -> dict[str, Any]:
    scale = max(abs(left), abs(right))
    return {
        "left": left,
        "right": right,
        "slack": right - left,
        "relative_slack": (right - left) / scale if scale else 0.0,
        "steps": len(of.step),
        "missing": of.missing,
        "undefined": of.undefined,
        "violations": 0,
        **dict.fromkeys(("tolerance", "lower", "upper", "worst", "worst_step")),
    }


def _each_step(line: Line, frame: pl.DataFrame) -> dict[str, Any]:
    of = _values(line, frame)
    if not len(of.step):
        return nothing(INCONCLUSIVE, "no step has everything the line needs")
    excess = of.excess(line.relation)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(of.tolerance > 0, excess / of.tolerance, np.where(excess > 0, np.inf, 0.0))
    beyond, at = int((excess > of.tolerance).sum()), int(np.argmax(ratio))
    found = _summary(line, of, float(of.left.mean()), float(of.right.mean()))
    found |= {"violations": beyond, "worst": float(ratio[at]), "worst_step": int(of.step[at])}
    found["tolerance"] = float(of.tolerance[at])
    n = len(of.step)
    if beyond:
        text = f"broken in {beyond} of {n} steps, most at step {of.step[at]} ({ratio[at]:.3g} times the tolerance)"
        return found | {"status": FAILS, "reason": text}
    if line.relation == "=":
        return found | {"status": HOLDS, "reason": f"in {n} steps, to rounding"}
    resolved = int((excess < -of.tolerance).sum())
    if not resolved:
        text = f"in none of {n} steps is the slack larger than rounding"
        return found | {"status": INCONCLUSIVE, "reason": text}
    text = f"in {n} steps" + (f"; in {n - resolved} of them only to rounding" if resolved < n else "")
    return found | {"status": HOLDS, "reason": text}


def _sum(line: Line, frame: pl.DataFrame) -> dict[str, Any]:
    of = _values(line, frame)
    if not len(of.step):
        return nothing(INCONCLUSIVE, "no step has everything the line needs")
    left, right, tolerance = (float(part.sum()) for part in (of.left, of.right, of.tolerance))
    return _of_two_numbers(line, of, left, right, tolerance, 0.0)


def _run(line: Line, frame: pl.DataFrame) -> dict[str, Any]:
    noise = pl.lit(0.0) if line.noise is None else line.noise
    if line.second_half:
        frame = frame.tail(len(frame) - len(frame) // 2)
    parts = (line.left, line.right, line.tolerance, noise)
    row = frame.select(part.cast(pl.Float64).alias(str(i)) for i, part in enumerate(parts)).row(0)
    nothing = np.empty(0)
    of = _Values(frame["step"].to_numpy(), *(nothing,) * 4, missing=0, undefined=0)
    left, right, tolerance, error = (math.nan if value is None else value for value in row)
    found = _of_two_numbers(line, of, left, right, tolerance, 0.0 if math.isnan(error) else error)
    if not (math.isfinite(left) and math.isfinite(right)):
        gone = "missing, at some step or at all" if None in row[:2] else "not finite: the run diverged"
        return found | {"status": INCONCLUSIVE, "reason": f"a number it compares is {gone}"}
    return found


def _of_two_numbers(
    line: Line, of: _Values, left: float, right: float, tolerance: float, noise: float
) -> dict[str, Any]:
    excess, allowed = abs(left - right) if line.relation == "=" else left - right, _CONFIDENT * noise
    found = _summary(line, of, left, right) | {"tolerance": tolerance, "worst": _ratio(excess, tolerance + allowed)}
    if noise:
        found |= {"lower": left - right - allowed, "upper": left - right + allowed}
    if not excess <= tolerance + allowed:
        return found | {"status": FAILS, "violations": 1, "reason": f"{left:.6g} {_NOT[line.relation]} {right:.6g}"}
    text = f"{left:.6g} {SIGN[line.relation]} {right:.6g}"
    if allowed and (line.relation == "=" or excess > -allowed):
        return found | {"status": INCONCLUSIVE, "reason": f"{text} within the noise of the minibatches ({noise:.3g})"}
    return found | {"status": HOLDS, "reason": text}


def _mean(line: Line, frame: pl.DataFrame) -> dict[str, Any]:
    of = _values(line, frame)
    total = float(of.weight.sum())
    if not len(of.step) or not total > 0:
        return nothing(INCONCLUSIVE, "no step has everything the line needs")
    weight = of.weight / (total / len(of.step))
    excess = weight * (of.left - of.right)
    interval = mean_interval(excess)
    left, right = (float((weight * part).mean()) for part in (of.left, of.right))
    tolerance = float((weight * of.tolerance).mean())
    found = _summary(line, of, left, right)
    found |= {"tolerance": tolerance, "lower": interval.lower, "upper": interval.upper}
    if line.relation == "=":
        return found | _equal(line, frame, interval.lower, interval.upper, tolerance, interval.shortfall)
    found["worst"] = _ratio(interval.estimate, tolerance)
    if interval.lower > tolerance and not interval.shortfall:
        text = f"the mean of left − right lies in [{interval.lower:.3g}, {interval.upper:.3g}], above 0"
        return found | {"status": FAILS, "reason": text}
    if (excess <= weight * of.tolerance).all() and (excess < 0).any():
        return found | {"status": HOLDS, "reason": f"in each of {len(excess)} steps, and so in the mean"}
    if (excess > weight * of.tolerance).all():
        return found | {"status": FAILS, "reason": f"broken in each of {len(excess)} steps, and so in the mean"}
    if interval.shortfall:
        return found | {"status": INCONCLUSIVE, "reason": interval.shortfall}
    text = f"the mean of left − right lies in [{interval.lower:.3g}, {interval.upper:.3g}]"
    if interval.upper <= tolerance:
        return found | {"status": HOLDS, "reason": text}
    return found | {"status": INCONCLUSIVE, "reason": f"{text}, which has 0 in it"}


def _equal(
    line: Line, frame: pl.DataFrame, lower: float, upper: float, tolerance: float, shortfall: str | None
) -> dict[str, Any]:
    margin = line.margin if line.margin is not None else pl.lit(0.0)
    allowed = frame.select(margin.cast(pl.Float64)).item()
    text = f"the mean of left − right lies in [{lower:.3g}, {upper:.3g}]"
    if allowed is None or shortfall:
        return {"status": INCONCLUSIVE, "reason": shortfall or f"{text}; the margin is missing"}
    allowed += tolerance
    if lower > allowed or upper < -allowed:
        return {"status": FAILS, "reason": f"{text}, beyond ± {allowed:.3g}"}
    if -allowed <= lower and upper <= allowed:
        return {"status": HOLDS, "reason": f"{text}, within ± {allowed:.3g}"}
    return {"status": INCONCLUSIVE, "reason": f"{text}, not within ± {allowed:.3g}"}


def _ratio(excess: float, tolerance: float) -> float:
    return excess / tolerance if tolerance > 0 else math.inf if excess > 0 else 0.0
