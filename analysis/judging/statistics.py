"""Means of steps that depend on each other, with honest intervals.

Neighbouring steps are correlated, so the interval of independent draws is far too short (three times, for first-order
correlation 0.8). Batch means: cut the run into contiguous batches much longer than the memory of the noise; their means
are then nearly independent. A slow drift of the mean along the run is not noise, so batches are compared only with
their neighbour: a window is two adjacent batches, its variance comes from their difference, and the windows' variances
add up. The interval is for the mean over the steps of this run, whatever drift it had. What is measured on fresh
minibatches is an independent draw at each step given the path, so that only the path makes steps depend on each other.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from analysis.judging.reductions import batched

WINDOWS_LEAST, WINDOWS_MOST = 10, 20  # two batches each: 20 to 40 batches
BATCH_LEAST = 5  # values in a batch, for a verdict
BATCH_LONG = 100  # once batches are this long, more of them rather than longer ones
BATCH_IN_MEMORIES = 5  # a batch must be this much longer than the noise's memory; coverage is 92 % or better then
CONFIDENCE = 0.95
EFFECTIVE_LEAST = 30

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided interval.

    Args:
        estimate, lower, upper: in the unit of the values; NaN where there are too few values to say.
        effective_samples: how many independent values would give the same standard error; at most their number.
        batches: how many batches the variance comes from.
        samples: how many values.
        batch: how many values a batch has.
        memory: over how many values the noise remembers itself: ``(1+r)/(1−r)``, r the correlation of neighbours.
    """

    estimate: float
    lower: float
    upper: float
    effective_samples: float
    batches: int
    samples: int
    batch: float
    memory: float

    @property
    def too_short(self) -> bool:
        """Whether there are too few values for batches at all."""
        return self.batches < 2 * WINDOWS_LEAST or self.batch < BATCH_LEAST

    @property
    def shortfall(self) -> str | None:
        """Why the interval should not carry a verdict, or None if it may."""
        if self.too_short:
            need = 2 * WINDOWS_LEAST * BATCH_LEAST
            return f"{self.samples} values; batch means need at least {need}"
        if self.effective_samples < EFFECTIVE_LEAST:
            return f"{self.effective_samples:.1f} effective of {self.samples} values; at least {EFFECTIVE_LEAST} needed"
        if self.batch < BATCH_IN_MEMORIES * self.memory:
            return f"values depend on the last {self.memory:.3g} or so, too many for batches of {self.batch:.0f}"
        return None


@dataclass(frozen=True)
class RatioInterval:
    """Σ numerator / Σ denominator: the ratios that a test on these values does not reject (Fieller).

    ``ratio`` ends at ±∞ where the denominator is not resolved from 0, for then some ratio of any size fits.
    ``numerator`` and ``denominator`` are of the sums, ``difference`` of the mean of ``numerator − bound ·
    denominator``, whose sign decides whether the ratio is above ``bound``; ``ratio`` has its samples and memory.
    """

    ratio: Interval
    difference: Interval
    numerator: Interval
    denominator: Interval


@dataclass(frozen=True)
class Moments:
    """Batch means of ``k`` series of equal length.

    Args:
        mean, error: mean of each series and its standard error, shape ``(k,)``.
        halves: half the weighted difference of the two batches of each window, shape ``(windows, k)``: the squares add
            up to the squared error, the products of two series to their means' covariance.
        effective, memory: as of an interval, shape ``(k,)``.
        batch: values in a batch.
    """

    mean: Values
    error: Values
    halves: Values
    effective: Values
    memory: Values
    batch: float

    @property
    def windows(self) -> int:
        """How many pairs of batches there are."""
        return len(self.halves)


def mean_interval(values: Values, confidence: float = CONFIDENCE) -> Interval:
    """Mean of ``values``, shape ``(n,)``, in order of steps, all finite, with its batch-means interval.

    Example:
        >>> mean_interval(np.full(400, 2.0)).lower
        2.0
    """
    return _interval(moments(values[:, None]), len(values), confidence)


def trend_interval(values: Values, confidence: float = CONFIDENCE) -> Interval:
    """Mean of the second half of ``values`` minus mean of the first, each half with batches of its own.

    ``effective_samples`` and ``batches`` are those of the poorer half.
    """
    return _interval(trend_moments(values[:, None]), len(values), confidence)


def ratio_interval(
    numerator: Values, denominator: Values, bound: float, confidence: float = CONFIDENCE
) -> RatioInterval:
    """Ratio of two sums over the same steps, both ``(n,)`` and finite, with the interval of Fieller.

    The set of ratios r for which the mean of ``numerator − r · denominator`` is not resolved from 0 by batch means.

    Example:
        >>> rows = np.arange(400.0) % 7
        >>> ratio_interval(2 * rows, rows, bound=1).ratio.upper
        2.0
    """
    n = len(numerator)
    of = moments(np.column_stack([numerator, denominator]))
    sums = [_scaled(_interval(of, n, confidence, i), float(n)) for i in (0, 1)]
    decides = mean_interval(numerator - bound * denominator, confidence)
    low, high = fieller(of, t_quantile(of.windows, confidence))
    estimate = sums[0].estimate / sums[1].estimate if sums[1].estimate else math.nan
    return RatioInterval(replace(decides, estimate=estimate, lower=low, upper=high), decides, *sums)


def fieller(of: Moments, quantile: float) -> tuple[float, float]:
    """Ends of ``{r : |a − r b| ≤ quantile · error(a − r b)}``, ±∞ where that is not an interval."""
    if math.isnan(quantile):
        return -math.inf, math.inf
    scale = np.maximum(np.abs(of.mean), np.abs(of.halves).max(axis=0))
    scale = np.where(scale > 0, scale, 1.0)  # squares of tiny or huge means would under- or overflow
    (a, b), halves = of.mean / scale, quantile * of.halves / scale
    bb = b**2 - halves[:, 1] @ halves[:, 1]
    ab = a * b - halves[:, 0] @ halves[:, 1]
    aa = a**2 - halves[:, 0] @ halves[:, 0]
    if not bb > 0:
        return -math.inf, math.inf
    root = math.sqrt(max(ab**2 - aa * bb, 0.0))
    unit = scale[0] / scale[1]
    return float((ab - root) / bb * unit), float((ab + root) / bb * unit)


def moments(values: Values) -> Moments:
    """Batch means of the columns of ``values``, shape ``(n, k)``, in order of steps, all finite."""
    n, k = values.shape
    if n < 2:
        mean, unknown = values.sum(axis=0) if n else np.full(k, np.nan), np.full(k, np.nan)
        return Moments(mean, unknown, np.empty((0, k)), np.zeros(k), np.ones(k), 0.0)
    largest = np.maximum(values.max(axis=0), -values.min(axis=0))
    exponent = np.maximum(np.frexp(largest)[1], -1000)  # its inverse must be a number
    scale = np.ldexp(0.5, exponent)  # a diverging run's squares would overflow
    windows = _windows(n)
    lengths = np.full(2 * windows, n // (2 * windows))
    lengths[: n % (2 * windows)] += 1
    sums, spread, together = batched(values, 1 / scale, np.concatenate([[0], np.cumsum(lengths)]))
    means = (sums / lengths[:, None]).reshape(windows, 2, k)
    weights = lengths.reshape(windows, 2).sum(axis=1) / n
    halves = weights[:, None] * (means[:, 0] - means[:, 1]) / 2
    variance = (halves**2).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        effective = np.where(variance == 0, n, np.minimum(n, spread / max(n - windows, 1) / variance))
        neighbours = np.where(spread > 0, together / spread, 0.0)
    memory = (1 + neighbours) / (1 - neighbours)
    mean = (sums.sum(axis=0) / n) * scale
    return Moments(mean, np.sqrt(variance) * scale, halves * scale, effective, memory, n / (2 * windows))


def trend_moments(values: Values) -> Moments:
    """Of the second half of each column minus the first; what is not a mean is that of the poorer half."""
    middle = len(values) // 2
    first, second = moments(values[:middle]), moments(values[middle:])
    poorer = first if first.windows < second.windows else second
    return Moments(
        mean=second.mean - first.mean,
        error=np.hypot(first.error, second.error),
        halves=poorer.halves,
        effective=np.minimum(first.effective, second.effective),
        memory=np.maximum(first.memory, second.memory),
        batch=min(first.batch, second.batch),
    )


def _windows(n: int) -> int:
    if n < 2 * WINDOWS_LEAST * BATCH_LEAST:
        return max(1, n // (2 * BATCH_LEAST))  # too few for a verdict; still a number
    return int(np.clip(n // (2 * BATCH_LONG), WINDOWS_LEAST, WINDOWS_MOST))


@lru_cache
def t_quantile(windows: int, confidence: float) -> float:
    """How many standard errors an interval reaches to either side; NaN without a window."""
    from scipy.special import stdtrit  # here: scipy loads longer than all pages of the UI

    return float(stdtrit(windows, (1 + confidence) / 2)) if windows else math.nan


def intervals(of: Moments, samples: int, confidence: float = CONFIDENCE) -> list[Interval]:
    """The interval of every column of ``of``, which are of ``samples`` values each."""
    return [_interval(of, samples, confidence, i) for i in range(len(of.mean))]


def _interval(of: Moments, samples: int, confidence: float, column: int = 0) -> Interval:
    half = t_quantile(of.windows, confidence) * float(of.error[column])
    mean, effective, memory = (float(v[column]) for v in (of.mean, of.effective, of.memory))
    return Interval(mean, mean - half, mean + half, effective, 2 * of.windows, samples, of.batch, memory)


def _scaled(interval: Interval, factor: float) -> Interval:
    ends = {name: factor * getattr(interval, name) for name in ("estimate", "lower", "upper")}
    return replace(interval, **ends)
