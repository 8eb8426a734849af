"""Trains and records until somebody kills it; says after each step which step is acknowledged. Run as a script:
``python -m tests.recorded_to_death RUN [batches]``.
"""

import os
import sys

import torch

from tracer import Tracer

SIZE = 30


def steps(record=None, batches=False):
    """Yield x_t, g_t and the minibatch of a training that is the same every time."""
    torch.manual_seed(0)
    model = torch.nn.Linear(SIZE, SIZE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    tracer = None
    if record is not None:
        options = {"probes": ["look_back"], "chunk_bytes": 200_000, "record_batches": batches}
        tracer = Tracer(record, model, optimizer, **options)
    given = {}
    while True:
        inputs = torch.randn(8, SIZE)

        def loss_of(inputs=inputs):
            return (model(inputs) - inputs.flip(1)).square().mean()

        optimizer.zero_grad()
        if batches:
            given = {"tensors": {"inputs": inputs}}
        loss = loss_of() if tracer is None else tracer.loss(loss_of, **given)
        loss.backward()
        yield (
            torch.cat([p.detach().flatten() for p in model.parameters()]).numpy().copy(),
            torch.cat([p.grad.flatten() for p in model.parameters()]).numpy().copy(),
            inputs.numpy(),
        )
        optimizer.step()
        if tracer is not None and tracer.acknowledged is not None:
            os.write(1, f"{tracer.acknowledged}\n".encode())


if __name__ == "__main__":
    for _ in steps(sys.argv[1], "batches" in sys.argv[2:]):
        pass
