"""What convex theory says of a loss curve from the schedule of learning rates alone, and the curve fitted to a run.

For a convex loss with gradients of at most G, begun D from a minimiser, the last of T iterates of SGD obeys (Defazio,
Mehta, Mishchenko, Khaled, Cutkosky 2023, Theorem 10)

    F(x_T) − F* ≤ D² S1(T) + G² S2(T),  S1 = 1/(2 Σ lr),
    S2 = Σ lr²/(2 Σ lr) + ½ Σ_{k<T} [lr_k / Σ_{t>k} lr_t] [Σ_{t≥k} lr_t² / Σ_{t≥k} lr_t].
"""

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]
EXACT, GRID = 1000, 400  # lengths for which every step is computed; of longer runs, steps between which S2 is drawn
FITTED_LEAST = 20  # losses for three numbers
MOST = 1 << 26  # steps from the first recorded to the last
RESOLVED = 5  # a variance of n losses, less their noise, is off by about 2 noise/√n

OF_RATES = (
    *("rate_distance", "rate_noise", "rate_curve", "loss_moved", "loss_spread"),
    *("rate_agreement", "fitted_distance", "fitted_gradient"),
)
"""Columns that :func:`with_rates` adds."""


def with_rates(steps: pl.LazyFrame) -> pl.LazyFrame:
    """The step records, sorted, with the columns :data:`OF_RATES`; null where the rates or losses are not known.

    ``rate_curve`` is L∞ + a S1 + b S2 with a, b ≥ 0, fitted to the losses of the first half by least squares, and
    ``fitted_distance`` is √a, the D of the bound, ``fitted_gradient`` √b, its G; the mean of ``rate_agreement`` is the
    rank correlation of that curve with the loss;
    ``loss_spread`` half the squared difference to the loss before, whose mean is the variance of a minibatch's loss
    where the curve is slow; ``loss_moved`` the variance of the second half's losses beyond that, at its steps, and null
    where it is not clearly above 0.
    """
    found = steps.sort("step").collect()
    names = set(found.columns)
    if not {"lr", "loss"} <= names or found["lr"].null_count() == len(found):
        return found.lazy()
    rate = found["lr"].cast(pl.Float64).fill_null(0.0).to_numpy()
    loss = found["loss"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    first, second = _between(rate, found["step"].to_numpy())
    with np.errstate(over="ignore", invalid="ignore"):  # of a run that diverged
        spread = np.diff(loss, prepend=np.nan) ** 2 / 2
        a, b, curve = fitted(loss, first, second)
        beyond = moved(loss, spread)
    follows = found["step"].diff().fill_null(0).to_numpy() == 1  # those that are a pair with the step before
    constants = (np.full(len(loss), np.sqrt(each)) for each in (a, b))
    made = (first, second, curve, beyond, spread, agreement(loss, curve, follows), *constants)
    columns = dict(zip(OF_RATES, made, strict=True))
    return found.with_columns(pl.Series(name, of, nan_to_null=True) for name, of in columns.items()).lazy()


def _between(rate: Floats, step: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """S1 and S2 at the recorded steps; one that was not recorded had the rate of the one before it."""
    if len(step) < 2 or step[-1] - step[0] + 1 > MOST:
        nothing = np.full(len(step), np.nan)
        return of_schedule(rate) if len(step) < 2 else (nothing, nothing)
    first, second = of_schedule(np.repeat(rate, np.diff(step, append=step[-1] + 1)))
    return first[step - step[0]], second[step - step[0]]


def of_schedule(rate: Floats) -> tuple[Floats, Floats]:
    """S1 and S2 after 1, 2, … steps of a schedule, each of shape ``(n,)``; NaN before the first rate above 0.

    Example:
        At a constant rate S2 is lr (1 + 1 + ½ + … + 1/(T−1)) / 2.

        >>> of_schedule(np.full(4, 0.1))[1].round(4)
        array([0.05  , 0.1   , 0.125 , 0.1417])
    """
    n = len(rate)
    total, squares = np.cumsum(rate), np.cumsum(rate**2)
    at = np.arange(n) if n <= EXACT else np.unique(np.geomspace(1, n, GRID).astype(np.int64)) - 1
    second = np.array([_noise(rate[: t + 1], total[: t + 1], squares[: t + 1]) for t in at])
    with np.errstate(divide="ignore", invalid="ignore"):
        first = np.where(total > 0, 1 / (2 * total), np.nan)
    return first, np.interp(np.arange(n), at, second) if n > EXACT else second


def fitted(loss: Floats, first: Floats, second: Floats) -> tuple[float, float, Floats]:
    """a, b and the curve of the first half's losses, at every step; NaN where there are too few of them."""
    from scipy.optimize import lsq_linear  # here: scipy loads longer than all pages of the UI

    n = len(loss)
    known = np.isfinite(loss) & np.isfinite(first) & np.isfinite(second)
    begin = known[: n // 2]
    if begin.sum() < FITTED_LEAST:
        return np.nan, np.nan, np.full(n, np.nan)
    columns = np.column_stack([np.ones(n), first, second])
    scale = np.abs(columns[: n // 2][begin]).max(axis=0)
    scale[scale == 0] = 1.0
    bounds = [-np.inf, 0, 0], [np.inf] * 3
    coefficients = lsq_linear(columns[: n // 2][begin] / scale, loss[: n // 2][begin], bounds).x
    _, a, b = (float(each) for each in coefficients / scale)
    return a, b, (columns / scale) @ coefficients


def agreement(loss: Floats, curve: Floats, chosen: npt.NDArray[np.bool_]) -> Floats:
    """Products of standardised ranks: their mean over the chosen steps is Spearman's correlation. NaN elsewhere.

    NaN everywhere if the curve ends no lower than it began: a bound that does not fall promises nothing, and a run that
    diverges would rise with it.

    Example:
        >>> agreement(np.array([3.0, 1.0, 2.0]), np.array([9.0, 4.0, 5.0]), np.ones(3, bool)).round(2)
        array([1.5, 1.5, 0. ])
    """
    found = np.full(len(loss), np.nan)
    known = chosen & np.isfinite(loss) & np.isfinite(curve)
    ranks = [pl.Series(of[known]).rank("average").cast(pl.Float64).to_numpy() for of in (loss, curve)]
    falls = known.any() and curve[known][-1] < curve[known][0]
    if falls and np.ptp(ranks[0]) > 0:
        one, other = ((each - each.mean()) / each.std() for each in ranks)
        found[known] = one * other
    return found


def moved(loss: Floats, spread: Floats) -> Floats:
    """How far the second half's losses move beyond what minibatches differ: a variance at its steps, else NaN."""
    n = len(loss)
    half, found = loss[n // 2 :], np.full(n, np.nan)
    known = np.isfinite(half) & np.isfinite(spread[n // 2 :])
    if known.sum() >= FITTED_LEAST:
        noise = spread[n // 2 :][known].mean()
        beyond = half[known].var() - noise
        if beyond > RESOLVED * noise / np.sqrt(known.sum()):
            found[n // 2 :] = beyond
    return found


def _noise(rate: Floats, total: Floats, squares: Floats) -> float:
    if not total[-1] > 0:
        return float("nan")
    tail = total[-1] - total + rate  # Σ_{t≥k}
    tail_squares = squares[-1] - squares + rate**2
    counts = (rate[:-1] > 0) & (tail[1:] > 0)
    shares = rate[:-1][counts] / tail[1:][counts] * tail_squares[:-1][counts] / tail[:-1][counts]
    return float(squares[-1] / (2 * total[-1]) + shares.sum() / 2)
