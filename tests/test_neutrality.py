"""Training with the tracer is bit for bit the training without it."""

import random

import numpy as np
import pytest
import torch

from tests.training import OPTIMIZERS, noisy_net, train
from tracer.probe import ask


def everything(model):
    return [*(p.detach() for p in model.parameters()), *model.buffers()]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weights_buffers_and_random_streams_do_not_change(tmp_path, optimizer):
    random.seed(0), np.random.seed(0)
    alone = train(noisy_net, optimizer, image=True)
    streams = torch.get_rng_state(), np.random.random(), random.random()
    random.seed(0), np.random.seed(0)
    watched = train(noisy_net, optimizer, tmp_path / "run", image=True)
    assert all(torch.equal(a, b) for a, b in zip(everything(alone), everything(watched), strict=True))
    assert torch.equal(streams[0], torch.get_rng_state())
    assert streams[1:] == (np.random.random(), random.random())


def test_the_net_of_the_test_above_notices_a_disturbed_stream():
    """Dropout makes one more random number change the weights: the comparison above can fail."""
    alone = everything(train(noisy_net, image=True))

    class Greedy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = noisy_net()

        def forward(self, x):
            torch.rand(1)
            return self.inner(x)

    assert not all(torch.equal(a, b) for a, b in zip(alone, everything(train(Greedy, image=True)), strict=True))


def test_a_probe_puts_back_parameters_grad_flags_buffers_and_replaced_buffers():
    model = noisy_net()
    parameters = list(model.parameters())
    for p in parameters:
        p.grad = torch.ones_like(p)
    before = [p.detach().clone() for p in parameters]
    grads = [p.grad for p in parameters]
    versions = [p._version for p in parameters]
    buffers = {name: (b, b.clone()) for name, b in model.named_buffers()}

    def closure():
        model.eval()
        model.train()
        loss = model(torch.rand(8, 1, 8, 8)).square().mean()
        model[1].running_mean = torch.full((4,), 7.0)  # some modules assign a new tensor
        model.eval()
        return loss

    loss, found = ask(closure, parameters, [p.detach() + 1 for p in parameters], model)
    assert torch.isfinite(loss)
    assert any(f.abs().sum() > 0 for f in found)
    assert all(torch.equal(a, p) for a, p in zip(before, parameters, strict=True))
    assert all(g is p.grad and (g == 1).all() for g, p in zip(grads, parameters, strict=True))
    assert versions == [p._version for p in parameters]
    assert all(m.training for m in model.modules())
    for name, b in model.named_buffers():
        assert b is buffers[name][0]
        assert torch.equal(b, buffers[name][1])


def test_a_probe_that_fails_puts_everything_back():
    model = noisy_net()
    parameters = list(model.parameters())
    before = [p.detach().clone() for p in parameters]

    def closure():
        model.eval()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask(closure, parameters, [p.detach() + 1 for p in parameters], model)
    assert all(torch.equal(a, p) for a, p in zip(before, parameters, strict=True))
    assert model.training


def test_undisturbed_restores_the_streams_of_torch_numpy_and_python():
    model = noisy_net()
    with undisturbed(model, [torch.device("cpu")]):
        first = torch.rand(1), np.random.random(), random.random()
    assert first == (torch.rand(1), np.random.random(), random.random())
