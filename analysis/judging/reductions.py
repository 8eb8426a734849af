"""Sums, extremes and medians of many stretches of steps at once: what is compiled, because there are so many values."""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_jit = numba.njit(nogil=True, cache=True, error_model="numpy")


def summaries(values: Array, missing: Array, rows: Array, starts: Array, ends: Array) -> tuple[Array, Array]:
    """Counts and statistics of the finite values of each stretch and block.

    Args:
        values: shape ``(n, k)``, float64.
        missing: where a value was never measured, shape ``(n, k)``, or ``(0, 0)`` for nowhere.
        rows: row numbers of ``values``; a stretch is a part of them.
        starts, ends: of the stretches in ``rows``, shape ``(stretches,)``.

    Returns:
        counts, shape ``(k, stretches, 3)``: finite, undefined, missing; statistics, shape ``(k, stretches, 4)``: sum,
        smallest, median, largest, NaN where nothing is finite.
    """
    counts, found = _summaries(_by_block(values), _by_block(missing), *map(_fixed, (rows, starts, ends)))
    return counts, found


def sums_of_pairs(first: Array, second: Array, rows: Array, starts: Array, ends: Array) -> Array:
    """Sums over the rows where both are finite, shape ``(2, k, stretches)``, NaN where there is no such row."""
    found: Array = _sums_of_pairs(_by_block(first), _by_block(second), *map(_fixed, (rows, starts, ends)))
    return found


def batched(values: Array, factors: Array, edges: Array) -> tuple[Array, Array, Array]:
    """Of ``values * factors``, all finite: sums of batches, and deviations within windows of two batches.

    Args:
        values: shape ``(n, k)``, float64.
        factors: one for each column, shape ``(k,)``.
        edges: where the batches begin and the last one ends, shape ``(batches + 1,)``; an even number of batches.

    Returns:
        sums, shape ``(batches, k)``; summed over all windows, squared deviations from the window's own mean and
        products of neighbouring ones, shape ``(k,)``.
    """
    sums, squares, products = _batched(_fixed(values), _fixed(factors), _fixed(edges))
    return sums, squares, products


def _fixed(array: Array) -> Array:
    """One kind of array for the compiler, whether or not it may be written to."""
    found = np.ascontiguousarray(array).view()
    found.flags.writeable = False
    return found


def _by_block(values: Array) -> Array:
    return _fixed(values.T)


@_jit
def _summaries(values: Array, missing: Array, rows: Array, starts: Array, ends: Array) -> Any:
    k, stretches = values.shape[0], len(starts)
    counts, found = np.zeros((k, stretches, 3), np.int64), np.full((k, stretches, 4), np.nan)
    finite = np.empty(len(rows))
    for b in range(k):
        for w in range(stretches):
            m = nothing = 0
            total, smallest, largest = 0.0, np.inf, -np.inf
            for i in range(starts[w], ends[w]):
                value = values[b, rows[i]]
                if np.isfinite(value):
                    finite[m] = value
                    m += 1
                    total += value
                    smallest, largest = min(smallest, value), max(largest, value)
                elif missing.size and missing[b, rows[i]]:
                    nothing += 1
            counts[b, w, 0], counts[b, w, 2] = m, nothing
            counts[b, w, 1] = ends[w] - starts[w] - m - nothing
            if m:
                found[b, w, 0], found[b, w, 1], found[b, w, 3] = total, smallest, largest
                found[b, w, 2] = _median(finite, m)
    return counts, found


@_jit
def _median(values: Array, n: int) -> Any:
    """Of the first ``n``, which are reordered: selection that does not branch on values, three times as fast so."""
    k = n // 2
    left, right = 0, n
    found = values[0]
    while True:
        x, y, z = values[left], values[(left + right) // 2], values[right - 1]
        pivot = max(min(x, y), min(max(x, y), z))
        middle = left
        for i in range(left, right):  # those below the pivot to the front
            value = values[i]
            values[i] = values[middle]
            values[middle] = value
            middle += value < pivot
        if k < middle:
            right = middle
            continue
        left = middle
        for i in range(left, right):  # then those that equal it
            value = values[i]
            values[i] = values[middle]
            values[middle] = value
            middle += value <= pivot
        if k < middle:
            found = pivot
            break
        left = middle
    if n % 2:
        return found
    below = values[0]
    for i in range(1, k):
        below = max(below, values[i])
    return below + (found - below) / 2


@_jit
def _sums_of_pairs(first: Array, second: Array, rows: Array, starts: Array, ends: Array) -> Array:
    k, stretches = first.shape[0], len(starts)
    found = np.full((2, k, stretches), np.nan)
    for b in range(k):
        for w in range(stretches):
            one = other = 0.0
            there = False
            for i in range(starts[w], ends[w]):
                a, c = first[b, rows[i]], second[b, rows[i]]
                if np.isfinite(a) and np.isfinite(c):
                    one, other, there = one + a, other + c, True
            if there:
                found[0, b, w], found[1, b, w] = one, other
    return found


@_jit
def _batched(values: Array, factors: Array, edges: Array) -> Any:
    k = values.shape[1]
    sums = np.zeros((len(edges) - 1, k))
    squares, products, mean, before = np.zeros(k), np.zeros(k), np.zeros(k), np.zeros(k)
    for w in range(0, len(sums), 2):  # a window stays in the cache between its two visits
        for j in range(w, w + 2):
            for i in range(edges[j], edges[j + 1]):
                for b in range(k):
                    sums[j, b] += values[i, b] * factors[b]
        for b in range(k):
            mean[b] = (sums[w, b] + sums[w + 1, b]) / (edges[w + 2] - edges[w])
            before[b] = 0.0  # no neighbours across windows
        for i in range(edges[w], edges[w + 2]):
            for b in range(k):
                x = values[i, b] * factors[b] - mean[b]
                squares[b] += x * x
                products[b] += x * before[b]
                before[b] = x
    return sums, squares, products
