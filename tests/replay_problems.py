"""Workloads whose numbers are known exactly, and their recording; replay imports this module."""

import multiprocessing
import os
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tests.problems import positive_definite
from tests.training import digits, noisy_net
from tracer import Tracer

HESSIAN = positive_definite(5, 0.2, 3.0, seed=4)
L2 = 1e-4


class TwoBlocks(nn.Module):
    """Five numbers in two tensors."""

    def __init__(self, first=(1.0, -2.0), second=(0.5, 1.5, -1.0)):
        super().__init__()
        self.first = nn.Parameter(torch.tensor(first, dtype=torch.float64))
        self.second = nn.Parameter(torch.tensor(second, dtype=torch.float64))

    def forward(self):
        return torch.cat([self.first, self.second])


class Quadratic:
    """xᵀHx/2 + ⟨z, x⟩; F has z = 0."""

    build = TwoBlocks

    def loss(self, model, batch):
        x = model()
        return x @ torch.from_numpy(HESSIAN) @ x / 2 + batch["z"] @ x

    def full_data(self):
        yield {"z": torch.zeros(5, dtype=torch.float64)}

    def draw(self, random):
        return {"z": torch.from_numpy(random.normal(size=5) * 0.1)}


class Another(Quadratic):
    """Not the loss that was recorded."""

    def loss(self, model, batch):
        return 2 * super().loss(model, batch)


class Jittery(Quadratic):
    """The quadratic plus 1, off by something else at every evaluation, as on a device that does not repeat itself."""

    spread = 3e-5

    def __init__(self):
        self.random = np.random.default_rng(0)

    def loss(self, model, batch):
        return super().loss(model, batch) + 1 + self.spread * self.random.standard_normal()


class Deadly(Quadratic):
    """The quadratic, which kills every process but the first."""

    def loss(self, model, batch):
        if multiprocessing.parent_process() is not None:
            os._exit(9)
        return super().loss(model, batch)


class Coarse:
    """100 + 10⁻³ ‖x − z‖²/2 in single precision, whose losses are multiples of 8·10⁻⁶."""

    def build(self):
        model = nn.Module()
        model.x = nn.Parameter(torch.linspace(-1, 1, 5))
        return model

    def loss(self, model, batch):
        return 100 + 1e-3 * (model.x - batch["z"]).square().sum() / 2

    def draw(self, random):
        return {"z": torch.from_numpy(random.normal(size=5).astype(np.float32))}


class Hill(Coarse):
    """The same upside down: as coarse, and nowhere convex."""

    def loss(self, model, batch):
        return 200 - super().loss(model, batch)


class Converts(Coarse):
    """The same, which insists on single precision."""

    def loss(self, model, batch):
        return super().loss(model, batch).float()


class Fickle(Coarse):
    """Another loss in double precision."""

    def loss(self, model, batch):
        return super().loss(model, batch) * (2 if model.x.dtype is torch.float64 else 1)


class OtherShape(Quadratic):
    def build(self):
        return TwoBlocks((1.0,))


class TwoLayer:
    """(uv − 1)²/2."""

    start = (0.5, 1.2)

    def build(self):
        model = nn.Module()
        model.u, model.v = (nn.Parameter(torch.tensor(w, dtype=torch.float64)) for w in self.start)
        return model

    def loss(self, model, batch):
        return (model.u * model.v - 1).square() / 2

    def full_data(self):
        yield {}

    def draw(self, random):
        return {}


class OneNumber:
    """f(|x|) for one number x; begins where ``start`` says."""

    start = 0.1

    def __init__(self, f):
        self.f = f

    def build(self):
        model = nn.Module()
        model.x = nn.Parameter(torch.tensor([self.start], dtype=torch.float64))
        return model

    def loss(self, model, batch):
        return self.f(model.x.abs()).sum()

    def full_data(self):
        yield {}

    def draw(self, random):
        return {}


class Logistic:
    """Logistic regression on breast cancer, L2 = 1e-4 on the 31 parameters, in double precision."""

    def build(self):
        model = nn.Linear(30, 1).double()
        nn.init.zeros_(model.weight)
        nn.init.zeros_(model.bias)
        return model

    def loss(self, model, batch):
        penalty = sum(p.square().sum() for p in model.parameters())
        logits = model(batch["inputs"]).squeeze(1)
        return functional.binary_cross_entropy_with_logits(logits, batch["labels"]) + L2 / 2 * penalty

    def data(self):
        return breast_cancer()

    def full_data(self):
        whole = breast_cancer()
        for part in (slice(0, 200), slice(200, None)):
            yield {name: t[part] for name, t in whole.items()}

    def draw(self, random):
        chosen = random.choice(569, 64, replace=False)
        return {name: t[chosen] for name, t in breast_cancer().items()}


class Noisy:
    """BatchNorm, dropout, a module of its own in eval mode; draws random numbers and changes buffers."""

    def build(self):
        return noisy_net()

    def loss(self, model, batch):
        return functional.cross_entropy(model(batch["images"]), batch["labels"])

    def draw(self, random):
        images, labels = images_of_digits()
        chosen = random.choice(len(labels), 12)
        return {"images": images[chosen].reshape(-1, 1, 8, 8), "labels": labels[chosen]}


images_of_digits = cache(digits)


@cache
def breast_cancer():
    from sklearn.datasets import load_breast_cancer

    inputs, labels = load_breast_cancer(return_X_y=True)
    inputs = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)
    return {"inputs": torch.from_numpy(inputs), "labels": torch.from_numpy(labels.astype(float))}


quadratic, another, other_shape, jittery, deadly = Quadratic(), Another(), OtherShape(), Jittery(), Deadly()
two_layer, logistic, noisy = TwoLayer(), Logistic(), Noisy()
coarse, converts, fickle = Coarse(), Converts(), Fickle()
hill = Hill()
kink, star = OneNumber(lambda a: a), OneNumber(lambda a: a * (1 - (-a).exp()))


def record(
    path: Path,
    name: str,
    steps: int,
    lr: float,
    optimizer=torch.optim.SGD,
    parts: int = 1,
    seed: int = 1,
    make=Tracer,
    **options,
):
    """Train ``name`` of this module and record it with its minibatches; each is ``parts`` micro-batches."""
    problem = globals()[name]
    torch.manual_seed(seed)
    random = np.random.default_rng(6 + seed)
    model = problem.build()
    opt = optimizer(model.parameters(), lr=lr)
    options = {"record_batches": True, "workload": f"{__name__}:{name}", **options}
    whole = options["record_batches"]
    low = options.pop("autocast", False)
    with make(path, model, opt, **options) as tracer:
        for step in range(steps):
            opt.zero_grad()
            for _ in range(parts):
                batch = problem.draw(random)
                with torch.autocast("cpu", torch.bfloat16, enabled=low):
                    tensors = batch if whole else None
                    loss = tracer.loss(lambda b=batch: problem.loss(model, b), tensors=tensors, epoch=step // 10)
                (loss / parts).backward()
            opt.step()
    return path if make is Tracer else tracer
