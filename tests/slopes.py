"""Trainings without any objective: random slopes, so that only the optimizers' algebra can hold."""

from pathlib import Path

import numpy as np
import torch

from tracer import Tracer
from tracer.store import Trace

SIZES, STEPS = (3, 4), 50
RATES = 0.1 / np.sqrt(1 + np.arange(STEPS))


def sgd(**options):
    return lambda p: torch.optim.SGD(p, **{"lr": 0.1, **options})


def adamw(**options):
    return lambda p: torch.optim.AdamW(p, **{"lr": 0.02, "betas": (0.9, 0.95), "weight_decay": 0.1, **options})


OPTIMIZERS = {
    "sgd": (sgd(), None),
    "sgd with a schedule": (sgd(), RATES),
    "heavy ball": (sgd(momentum=0.9), None),
    "heavy ball with a schedule": (sgd(momentum=0.9), RATES),
    "Nesterov": (sgd(momentum=0.9, nesterov=True), None),
    "Nesterov with a schedule": (sgd(momentum=0.9, nesterov=True), RATES),
    "momentum as an average": (sgd(momentum=0.9, dampening=0.9), RATES),
    "dampening and coupled decay": (sgd(momentum=0.9, dampening=0.5, weight_decay=0.01), RATES),
    "maximize": (sgd(momentum=0.9, maximize=True), RATES),
    "adamw": (adamw(), None),
    "amsgrad with coupled decay": (lambda p: torch.optim.Adam(p, lr=0.02, weight_decay=0.1, amsgrad=True), RATES),
}


class Slopes(torch.nn.Module):
    """f(x, z_t) = ⟨z_t, x⟩ with random z_t: no objective at all, so that only algebra can hold."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        random = np.random.default_rng(5)
        self.z = torch.tensor(random.normal(size=(STEPS + 10, sum(SIZES))), dtype=dtype)
        self.a, self.b = (torch.nn.Parameter(torch.tensor(random.normal(size=s), dtype=dtype)) for s in SIZES)

    def forward(self, t):
        return self.z[t, :3] @ self.a + self.z[t, 3:] @ self.b


def record(path: Path, make=None, rates=None, model=None, after=None, steps=STEPS, scale=None, **options):
    """Train on random slopes; ``after(model, t, before)`` may change the points once the update is done."""
    model = model or Slopes()
    optimizer = make(list(model.parameters()))
    with Tracer(path, model, optimizer, **{"probes": ["look_back"], **options}) as tracer:
        for t in range(steps):
            for group in optimizer.param_groups if rates is not None else ():
                group["lr"] = float(rates[t])
            optimizer.zero_grad()
            tracer.loss(lambda: model(t), random_scale=None if scale is None else scale[t]).backward()  # noqa: B023
            before = [p.detach().clone() for p in model.parameters()]
            optimizer.step()
            if after is not None:
                with torch.no_grad():
                    after(model, t, before)
    return Trace(path)
