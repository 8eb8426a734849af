"""Inner products of replayed gradients: of few numbers and of many by different code, and the same."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from tracer.replay import products as module
from tracer.store.manifest import Block


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("first", [True, False])
def test_products_are_exact_in_either_way_and_wherever_a_block_is_cut(monkeypatch, dtype, first):
    sizes = (1, 5000, 3, 9000)
    ends = np.cumsum((0, *sizes)).tolist()
    blocks = tuple(Block(f"b{i}", (n,), "float32", ends[i], n) for i, n in enumerate(sizes))
    random = torch.Generator().manual_seed(0)
    x, y, gx, gy, before = (torch.randn(ends[-1], dtype=dtype, generator=random) for _ in range(5))
    at = None if first else before
    few = module.products(blocks, x, y, gx, gy, at)
    monkeypatch.setattr(module, "SMALL", 0)
    assert_allclose(module.products(blocks, x, y, gx, gy, at), few, rtol=1e-11, atol=1e-11)
    d, dg, step = x.double() - y.double(), gx.double() - gy.double(), x.double() - before.double()
    pairs = ((gy, d), (dg, d), (dg, dg), (gy, gy), (gy, gx), (gy, step))
    exact = [[float((a.double() * b)[ends[k] : ends[k + 1]].sum()) for a, b in pairs] for k in range(4)]
    if first:
        assert np.isnan(few[:, 5]).all()
        few, exact = few[:, :5], [row[:5] for row in exact]
    assert_allclose(few[1:], exact, rtol=1e-10, atol=1e-10)
    assert_allclose(few[0], np.sum(exact, axis=0), rtol=1e-10, atol=1e-10)
