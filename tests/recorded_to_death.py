"""Trains and records until somebody kills it; says after each step which step is acknowledged. Run as a script."""

import os
import sys

import torch

from tracer import Tracer

SIZE = 30


def steps(record=None):
    """Yield x_t and g_t of a training that is the same every time."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = torch.nn.Linear(SIZE, SIZE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    tracer = None if record is None else Tracer(record, model, optimizer, probes=["look_back"], chunk_bytes=200_000)
    while True:
        inputs = torch.randn(8, SIZE)

        def loss_of(inputs=inputs):
            return (model(inputs) - inputs.flip(1)).square().mean()

        optimizer.zero_grad()
        loss = loss_of() if tracer is None else tracer.loss(loss_of)
        loss.backward()
        yield (
            torch.cat([p.detach().flatten() for p in model.parameters()]).numpy().copy(),
            torch.cat([p.grad.flatten() for p in model.parameters()]).numpy().copy(),
        )
        optimizer.step()
        if tracer is not None and tracer.acknowledged is not None:
            os.write(1, f"{tracer.acknowledged}\n".encode())


if __name__ == "__main__":
    for _ in steps(sys.argv[1]):
        pass
