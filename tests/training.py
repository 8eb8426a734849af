"""Small trainings for tests: real torch, seeded, quick."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tracer import Tracer

Build = Callable[[], nn.Module]
Optimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
}


def noisy_net() -> nn.Module:
    """BatchNorm keeps buffers and dropout draws random numbers: both must survive a probe."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(4 * 36, 10)
    )


def plain_net() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images / 16.0, dtype=torch.float32), torch.tensor(labels)


def train(
    build: Build = plain_net,
    optimizer: str = "momentum",
    run: str | Path | None = None,
    steps: int = 20,
    dtype: torch.dtype = torch.float32,
    image: bool = False,
    **options: Any,
) -> nn.Module:
    """Train on the digits, recorded if ``run`` is given; returns the model."""
    torch.manual_seed(0)
    inputs, labels = digits()
    model = build().to(dtype)
    inputs = inputs.to(dtype).reshape(-1, 1, 8, 8) if image else inputs.to(dtype)
    opt = OPTIMIZERS[optimizer](list(model.parameters()))
    tracer = None if run is None else Tracer(run, model, opt, **{"probes": ["look_back"], **options})
    for step in range(steps):
        chosen = torch.randint(0, len(labels), (32,))

        def loss_of(chosen: torch.Tensor = chosen) -> torch.Tensor:
            return nn.functional.cross_entropy(model(inputs[chosen]), labels[chosen])

        opt.zero_grad()
        loss = loss_of() if tracer is None else tracer.loss(loss_of, epoch=0, batch=step)
        loss.backward()
        opt.step()
    if tracer is not None:
        tracer.close()
    return model
