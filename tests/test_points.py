"""The random reference point: drawn piece by piece, the same as drawn at once. Means: compiled or not, the same."""

import numpy as np
import pytest

from analysis.vectors.references import PIECE as SUMMED
from analysis.vectors.references import _add
from tracer.store.points import PIECE, SEED, _random, add_weighted


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1, 7, PIECE - 1, PIECE, 2 * PIECE + 5])
def test_a_random_point_is_as_far_as_the_last_and_drawn_as_if_at_once(size, dtype):
    random = np.random.default_rng(1)
    first, last = random.normal(size=(2, size)).astype(dtype)
    found = _random(first, last)
    direction = np.random.default_rng(SEED).standard_normal(size, np.float32).astype(np.float64)
    moved = last.astype(np.float64) - first
    expected = first + direction * np.linalg.norm(moved) / np.linalg.norm(direction)
    assert found.dtype == dtype
    few = max(1e-13, np.finfo(dtype).eps)
    np.testing.assert_allclose(found, expected, rtol=few, atol=few)


def test_of_a_run_that_diverged_or_never_moved_nothing_is_raised():
    first = np.ones(5, np.float32)
    assert np.isnan(_random(first, np.full(5, np.nan, np.float32))).all()
    assert not np.isfinite(_random(first, np.full(5, np.inf, np.float32))).any()
    assert np.array_equal(_random(first, first), first)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1, 5, SUMMED - 1, SUMMED, 3 * SUMMED + 7])
@pytest.mark.parametrize("count", range(10))
def test_the_compiled_sum_is_the_plain_one_bit_for_bit_and_skips_rows_without_weight(dtype, size, count):
    random = np.random.default_rng(count)
    x, weights = random.normal(size=(count + 2, size)).astype(dtype), random.uniform(size=count + 2)
    unrecorded = random.choice(count + 2, 2, replace=False)
    x[unrecorded], weights[unrecorded] = np.nan, 0.0
    first, last = size // 3, size
    before = random.normal(size=size)
    plain, compiled = before.copy(), before.copy()
    add_weighted(x, weights, first, last, plain)
    _add(x, weights, first, last, compiled)
    assert np.array_equal(compiled, plain)
    assert np.array_equal(compiled[:first], before[:first])
