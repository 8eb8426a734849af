"""An upper envelope with non-negative coefficients, fitted on the first half of a run and tried on the second.

``y ≤ c₀ + Σ c_i u_i`` for the share ``p`` of the steps, every c at least 0: quantile regression (Koenker, Bassett
1978), solved as the linear programme it is. The dual is solved, for it has a row per coefficient and not per step.

The share of the second half above it is uncertain twice: by that half's steps, and because the first half's fit could
have been another one. Measured on 400 runs of 2000 steps at the bound, of correlation 0.8: wrong in 3.0 % above, 4.25 %
below; without the second part in 16 % and 18 %.
"""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from analysis.judging.evidence import Flags, Floats
from analysis.judging.shares import share_interval
from analysis.judging.statistics import Interval, mean_interval

if TYPE_CHECKING:
    from scipy.sparse import csc_array

POINTS_MOST = 2000  # of the fit; a longer half is thinned evenly
RESAMPLES = 39  # the smallest and the largest of 39 leave 1 in 40 on either side: a 95 % interval
BLOCK_IN_MEMORIES = 5
_T_OF_RESAMPLES = 2.024  # 0.975 quantile of Student's t with one degree of freedom less than that
_SOLVED = 1e-7  # accuracy of the fit, relative to the largest value: what lies on the envelope is not above it
_COARSE = 0.1  # of the envelope: what rounds finer than that and lies on it is not far above it
_NEAR = 5  # a resample first looks at this many times the points that lie above; the others count by their sum


@dataclass(frozen=True)
class Envelope:
    """What was fitted and how it fared.

    Args:
        coefficients, lower, upper: c₀ first, shape ``(k + 1,)``; the ends are of a moving-block bootstrap of the fit.
        above: by how much each value lies above the envelope, shape ``(n,)``; −∞ in the half that was fitted.
        rate: share of the second half that lies above it by more than its tolerance, over the nominal ``1 − p``.
        perhaps: the same with those that may: within a tolerance of the envelope that is no small part of it.
    """

    coefficients: Floats
    lower: Floats
    upper: Floats
    above: Floats
    rate: Interval
    perhaps: Interval


def envelope(y: Floats, regressors: Floats, tolerance: Floats, p: float) -> Envelope:
    """Fit and try.

    Args:
        y: shape ``(n,)``, in order of steps, at least two values, all finite.
        regressors: shape ``(n, k)``, at least 0, all finite.
        tolerance: of ``y``, shape ``(n,)``.
        p: the share of the first half at or below the envelope.
    """
    design = np.column_stack([np.ones(len(y)), regressors])
    size, sizes = _size(y), _size(design)  # the solver's tolerances are absolute, and huge values would overflow
    y, design = y / size, design / sizes
    middle = len(y) // 2
    chosen = slice(0, middle, max(1, math.ceil(middle / POINTS_MOST)))
    coefficients = fit(design[chosen], y[chosen], p)
    resampled = _resampled(design[chosen], y[chosen], p, coefficients)
    above = y - design @ coefficients
    held_out, allowed = above[middle:], np.maximum(tolerance[middle:] / size, _SOLVED)
    memory, surely = mean_interval(held_out).memory, held_out > allowed
    coarse = tolerance[middle:] / size > _COARSE * (design[middle:] @ coefficients)
    others = (y[middle:, None] - design[middle:] @ resampled.T > allowed[:, None]).mean(axis=0)
    possibly = surely | (coarse & (held_out > -allowed))
    rate = perhaps = _widened(share_interval(surely, memory=memory), others)
    if not np.array_equal(surely, possibly):
        perhaps = _widened(share_interval(possibly, memory=memory), others)
    above[:middle] = -math.inf
    resampled *= size / sizes
    ends = resampled.min(axis=0), resampled.max(axis=0)
    of_nominal = (
        replace(share, **{name: getattr(share, name) / (1 - p) for name in ("estimate", "lower", "upper")})
        for share in (rate, perhaps)
    )
    return Envelope(coefficients * (size / sizes), *ends, above * size, *of_nominal)


def _widened(rate: Interval, others: Floats) -> Interval:
    """The interval of the share on the second half, with how much the fit of the first half could have been another.

    Args:
        rate: of the envelope that was fitted, as if it were known exactly.
        others: the same share for the envelopes of resampled first halves. Both errors are independent: they were made
            on different halves.
    """
    off = _T_OF_RESAMPLES * float(np.std(others, ddof=1))
    low, high = (math.hypot(end - rate.estimate, off) for end in (rate.lower, rate.upper))
    return replace(rate, lower=max(0.0, rate.estimate - low), upper=min(1.0, rate.estimate + high))


def _size(values: Floats) -> Floats:
    size = np.abs(values).max(axis=0)
    return np.where(size > 0, size, 1.0)


def fit(design: Floats, y: Floats, p: float) -> Floats:
    """Coefficients ``c ≥ 0``, shape ``(k,)``, of the ``p`` quantile of ``y`` given ``design``, shape ``(n, k)``.

    Both in units that make them about 1.

    Example:
        >>> fit(np.ones((101, 1)), np.arange(101.0), 0.9)
        array([90.])
    """
    return _solved(design.T, y, np.ones(len(y)), np.zeros(design.shape[1]), p)


def _solved(matrix: "Floats | csc_array", y: Floats, weight: Floats, below: Floats, p: float) -> Floats:
    """Multipliers of ``matrix @ v ≤ below`` at the largest ``y @ v``, each v between p − 1 and p times its weight."""
    from scipy.optimize import linprog  # here: scipy loads longer than all pages of the UI

    bounds = np.column_stack([(p - 1) * weight, p * weight])
    solved = linprog(-y, A_ub=matrix, b_ub=below, bounds=bounds, method="highs-ds")
    if solved.status != 0:
        raise ArithmeticError(f"the envelope's linear programme was not solved: {solved.message}")
    coefficients: Floats = np.maximum(-solved.ineqlin.marginals, 0.0)
    return coefficients


def _resampled(design: Floats, y: Floats, p: float, coefficients: Floats) -> Floats:
    """Coefficients of ``RESAMPLES`` runs of blocks of consecutive points, drawn with replacement, a row each."""
    n = len(y)
    residual = y - design @ coefficients
    length = min(max(1, math.ceil(BLOCK_IN_MEMORIES * mean_interval(residual).memory)), max(1, n // 4))
    starts = np.random.default_rng(0).integers(0, n - length + 1, (RESAMPLES, math.ceil(n / length)))
    drawn = (starts[:, :, None] + np.arange(length)).reshape(RESAMPLES, -1)[:, :n]
    clear = residual < min(0.0, float(np.quantile(residual, max(0.0, 1 - _NEAR * (1 - p)))))
    times = np.array([np.bincount(rows, minlength=n) for rows in drawn])
    found = _fits_of_near(design, y, p, times, clear)
    for i in np.flatnonzero(((y > found @ design.T) & clear & (times > 0)).any(axis=1)):
        rows = np.repeat(np.arange(n), times[i])
        found[i] = fit(design[rows], y[rows], p)
    return found


def _fits_of_near(design: Floats, y: Floats, p: float, times: npt.NDArray[np.int64], clear: Flags) -> Floats:
    """A fit per row of ``times``: what lies clearly below the envelope counts by its sum alone, which is exact if it
    lies below the fit as well. One programme holds them all, side by side, for each of its own is mostly overhead."""
    from scipy.sparse import csc_array

    near = np.flatnonzero(~clear)
    resample, point = np.nonzero(times[:, near])
    point, k = near[point], design.shape[1]
    weight = times[resample, point].astype(np.float64)
    rows = (resample[:, None] * k + np.arange(k)).ravel()
    columns = np.repeat(np.arange(len(point)), k)
    matrix = csc_array((design[point].ravel(), (rows, columns)), shape=(len(times) * k, len(point)))
    below = (1 - p) * (times[:, clear] @ design[clear]).ravel()
    return _solved(matrix, y[point], weight, below, p).reshape(-1, k)
