"""Means of steps that depend on each other, with honest intervals.

Neighbouring steps are correlated, so the interval of independent draws is far too short (three times, for first-order
correlation 0.8). Batch means: cut the run into contiguous batches much longer than the memory of the noise; their means
are then nearly independent. A slow drift of the mean along the run is not noise, so batches are compared only with
their neighbour: a window is two adjacent batches, its variance comes from their difference, and the windows' variances
add up. The interval is for the mean over the steps of this run, whatever drift it had. What is measured on fresh
minibatches is an independent draw at each step given the path, so that only the path makes steps depend on each other.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

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


def mean_interval(values: Values, confidence: float = CONFIDENCE) -> Interval:
    """Mean of ``values``, shape ``(n,)``, in order of steps, all finite, with its batch-means interval.

    Example:
        >>> mean_interval(np.full(400, 2.0)).lower
        2.0
    """
    return _interval(_moments(values), len(values), confidence)


def trend_interval(values: Values, confidence: float = CONFIDENCE) -> Interval:
    """Mean of the second half of ``values`` minus mean of the first, each half with batches of its own.

    ``effective_samples`` and ``batches`` are those of the poorer half.
    """
    middle = len(values) // 2
    first, second = _moments(values[:middle]), _moments(values[middle:])
    difference = _Moments(
        mean=second.mean - first.mean,
        error=math.hypot(first.error, second.error),
        windows=min(first.windows, second.windows),
        batch=min(first.batch, second.batch),
        effective=min(first.effective, second.effective),
        memory=max(first.memory, second.memory),
    )
    return _interval(difference, len(values), confidence)


@dataclass(frozen=True)
class _Moments:
    mean: float
    error: float  # standard error of the mean
    windows: int
    batch: float
    effective: float
    memory: float


def _moments(values: Values) -> _Moments:
    n = len(values)
    if n < 2:
        return _Moments(float(values[0]) if n else math.nan, math.nan, 0, 0.0, 0.0, 1.0)
    scale = 2.0 ** math.frexp(float(np.abs(values).max()))[1]  # a diverging run's squares would overflow
    scaled, windows = values / scale, _windows(n)
    batches = np.array_split(scaled, 2 * windows)
    means = np.array([batch.mean() for batch in batches]).reshape(windows, 2)
    weights = np.array([len(batch) for batch in batches]).reshape(windows, 2).sum(axis=1) / n
    variance = float(np.sum(weights**2 * (means[:, 0] - means[:, 1]) ** 2) / 4)
    # about each window's own mean: a drift over the whole run must not pass for many independent values
    apart = [part - part.mean() for part in np.array_split(scaled, windows)]
    spread = sum(float(part @ part) for part in apart)
    effective = float(n) if variance == 0 else min(float(n), spread / max(n - windows, 1) / variance)
    neighbours = sum(float(part[1:] @ part[:-1]) for part in apart) / spread if spread else 0.0
    memory = (1 + neighbours) / (1 - neighbours)
    return _Moments(
        float(scaled.mean()) * scale, math.sqrt(variance) * scale, windows, n / (2 * windows), effective, memory
    )


def _windows(n: int) -> int:
    if n < 2 * WINDOWS_LEAST * BATCH_LEAST:
        return max(1, n // (2 * BATCH_LEAST))  # too few for a verdict; still a number
    return int(np.clip(n // (2 * BATCH_LONG), WINDOWS_LEAST, WINDOWS_MOST))


def _interval(moments: _Moments, samples: int, confidence: float) -> Interval:
    quantile = float(stats.t.ppf((1 + confidence) / 2, moments.windows)) if moments.windows else math.nan
    half = quantile * moments.error
    ends = moments.mean - half, moments.mean + half
    return Interval(moments.mean, *ends, moments.effective, 2 * moments.windows, samples, moments.batch, moments.memory)
