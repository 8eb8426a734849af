"""Training the way people do it: one small function a style.

Each takes ``tracer_for(model, optimizer, **options)``, trains a few steps with what that returns, and gives back model
and optimizer. ``lemmata certify`` runs functions of the same form.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tests.training import noisy_net, plain_net

Trained = tuple[nn.Module, torch.optim.Optimizer]
STYLES: dict[str, Callable[..., Trained]] = {}
STEPS = 6


def style(train):
    STYLES[train.__name__] = train
    return train


def batches(count=STEPS, size=8, image=False, dtype=torch.float32):
    """Minibatches drawn as training goes, so that a disturbed random stream shows."""
    for _ in range(count):
        inputs = torch.rand(size, 64, dtype=dtype)
        yield inputs.reshape(-1, 1, 8, 8) if image else inputs, torch.randint(0, 10, (size,))


def fit(tracer_for, model, optimizer, *, image=False, dtype=torch.float32, before_step=None, schedule=None, **options):
    """The plain loop; ``before_step(tracer)`` comes between backward() and step()."""
    with tracer_for(model, optimizer, **options) as tracer:
        for step, (inputs, labels) in enumerate(batches(image=image, dtype=dtype)):
            optimizer.zero_grad()
            loss = tracer.loss(lambda: cross_entropy(model(inputs), labels), epoch=0, batch=step)  # noqa: B023
            loss.backward()
            if before_step is not None:
                before_step(tracer)
            optimizer.step()
            if schedule is not None:
                schedule.step()
    return model, optimizer


def sgd(model, **options):
    return torch.optim.SGD(model.parameters(), **{"lr": 0.05, "momentum": 0.9, **options})


@style
def dropout(tracer_for):
    model = nn.Sequential(nn.Linear(64, 16), nn.Dropout(0.5), nn.Linear(16, 10))
    return fit(tracer_for, model, sgd(model))


@style
def batch_norm(tracer_for):
    model = noisy_net()
    return fit(tracer_for, model, sgd(model), image=True)


@style
def batch_norm_with_cumulative_average_and_evaluation_in_between(tracer_for):
    model = nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16, momentum=None), nn.Dropout(0.1), nn.Linear(16, 10))
    optimizer = sgd(model)
    with tracer_for(model, optimizer) as tracer:
        for inputs, labels in batches():
            model.eval()
            with torch.no_grad():
                model(inputs)
            model.train()
            optimizer.zero_grad()
            tracer.loss(lambda: cross_entropy(model(inputs), labels)).backward()  # noqa: B023
            optimizer.step()
    return model, optimizer


@style
def gradient_accumulation(tracer_for):
    model = noisy_net()
    optimizer = sgd(model)
    with tracer_for(model, optimizer) as tracer:
        for _ in range(STEPS):
            optimizer.zero_grad()
            for inputs, labels in batches(3, image=True):
                loss = tracer.loss(lambda: cross_entropy(model(inputs), labels))  # noqa: B023
                (loss / 3).backward()
            optimizer.step()
    return model, optimizer


@style
def several_losses_in_one_backward(tracer_for):
    model = noisy_net()
    optimizer = sgd(model)
    with tracer_for(model, optimizer) as tracer:
        for _ in range(STEPS):
            optimizer.zero_grad()
            total = 0
            for inputs, labels in batches(2, image=True):
                total = total + tracer.loss(lambda: cross_entropy(model(inputs), labels)) / 2  # noqa: B023
            total.backward()
            optimizer.step()
    return model, optimizer


@style
def clipping_by_norm(tracer_for):
    model = noisy_net()
    return fit(tracer_for, model, sgd(model), image=True, before_step=lambda tracer: tracer.clip_grad_norm_(0.3))


@style
def clipping_by_value(tracer_for):
    model = noisy_net()
    return fit(tracer_for, model, sgd(model), image=True, before_step=lambda tracer: tracer.clip_grad_value_(0.01))


@style
def gradient_noise_declared(tracer_for):
    model = noisy_net()

    def noise(tracer):
        for p in model.parameters():
            p.grad += 0.01 * torch.randn_like(p)

    return fit(tracer_for, model, sgd(model), image=True, before_step=noise, changed_gradients="record")


def _scaled(tracer_for, dtype, *, clip=None, inside=False, overflow=None, optimizer=None, sizes=(1,)):
    """Autocast with a gradient scaler; ``inside`` puts tracer.loss into the autocast region, not into the closure."""
    model = nn.Sequential(nn.Linear(64, 16), nn.Dropout(0.2), nn.ReLU(), nn.Linear(16, 10))
    optimizer = sgd(model) if optimizer is None else optimizer(model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=2)

    def loss_of(inputs, labels, factor):
        with torch.autocast("cpu", dtype):
            return cross_entropy(model(inputs).float(), labels) * factor

    with tracer_for(model, optimizer, grad_scaler=scaler) as tracer:
        for step in range(STEPS + 2):
            optimizer.zero_grad()
            factor = float("inf") if step == overflow else 1.0
            for inputs, labels in batches(len(sizes)):
                if inside:
                    with torch.autocast("cpu", dtype):
                        loss = tracer.loss(lambda: cross_entropy(model(inputs), labels) * factor)  # noqa: B023
                else:
                    loss = tracer.loss(lambda: loss_of(inputs, labels, factor))  # noqa: B023
                scaler.scale(loss / len(sizes)).backward()
            if clip is not None:
                scaler.unscale_(optimizer)
                tracer.clip_grad_norm_(clip)
            scaler.step(optimizer)
            scaler.update()
    return model, optimizer


@style
def autocast_bfloat16(tracer_for):
    return _scaled(tracer_for, torch.bfloat16)


@style
def autocast_float16_with_a_skipped_step(tracer_for):
    return _scaled(tracer_for, torch.float16, overflow=3)


@style
def autocast_around_the_tracer(tracer_for):
    return _scaled(tracer_for, torch.bfloat16, inside=True)


@style
def autocast_with_clipping_accumulation_and_a_skipped_step(tracer_for):
    return _scaled(tracer_for, torch.bfloat16, clip=0.3, sizes=(1, 1), overflow=2)


@style
def autocast_with_a_fused_optimizer_and_a_skipped_step(tracer_for):
    return _scaled(tracer_for, torch.bfloat16, optimizer=lambda p: torch.optim.AdamW(p, fused=True), overflow=3)


@style
def one_autocast_region_around_the_whole_step(tracer_for):
    model = nn.Sequential(nn.Linear(64, 16), nn.Dropout(0.2), nn.ReLU(), nn.Linear(16, 10))
    optimizer = sgd(model)
    with tracer_for(model, optimizer) as tracer:
        for inputs, labels in batches():
            with torch.autocast("cpu", torch.bfloat16):
                optimizer.zero_grad()
                first = model(inputs).square().mean()  # fills the cache of autocast before the tracer is asked
                loss = tracer.loss(lambda: cross_entropy(model(inputs), labels))  # noqa: B023
                (loss + first * 0.1).backward()
                optimizer.step()
    return model, optimizer


@style
def parameter_groups_with_a_schedule(tracer_for):
    model = noisy_net()
    groups = [
        {"params": model[0].parameters(), "lr": 0.1},
        {"params": [*model[1].parameters(), *model[5].parameters()]},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=STEPS + 1)
    return fit(tracer_for, model, optimizer, image=True, schedule=schedule)


@style
def learning_rate_as_a_tensor(tracer_for):
    model = noisy_net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.01), capturable=False, foreach=False)
    return fit(tracer_for, model, optimizer, image=True)


@style
def frozen_parameters(tracer_for):
    model = noisy_net()
    model[0].requires_grad_(False)
    return fit(tracer_for, model, sgd(model), image=True)


@style
def gradual_unfreezing(tracer_for):
    model = noisy_net()
    model[0].requires_grad_(False)
    optimizer = sgd(model, weight_decay=0.1)
    with tracer_for(model, optimizer, frozen="record") as tracer:
        for step, (inputs, labels) in enumerate(batches(image=True)):
            model[0].requires_grad_(step >= 3)
            optimizer.zero_grad()
            tracer.loss(lambda: cross_entropy(model(inputs), labels)).backward()  # noqa: B023
            optimizer.step()
    return model, optimizer


@style
def tied_weights(tracer_for):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.drop, self.head = nn.Embedding(10, 8), nn.Dropout(0.1), nn.Linear(8, 10, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, tokens):
            return self.head(self.drop(self.embed(tokens)))

    return _tokens(tracer_for, Tied(), torch.optim.AdamW)


def _tokens(tracer_for, model, optimizer, **options):
    optimizer = optimizer(model.parameters(), lr=0.05)
    with tracer_for(model, optimizer, **options) as tracer:
        for _ in range(STEPS):
            tokens = torch.randint(0, 10, (4, 7))
            optimizer.zero_grad()
            tracer.loss(
                lambda: cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())  # noqa: B023
            ).backward()
            optimizer.step()
    return model, optimizer


@style
def sparse_embedding_with_sparse_adam(tracer_for):
    model = nn.Sequential(nn.Embedding(10, 10, sparse=True), nn.Dropout(0.2))
    return _tokens(tracer_for, model, torch.optim.SparseAdam)


@style
def sparse_embedding_with_sgd(tracer_for):
    model = nn.Sequential(nn.Embedding(10, 6, sparse=True), nn.Dropout(0.2), nn.Linear(6, 10))
    return _tokens(tracer_for, model, torch.optim.SGD)


@style
def parameters_without_a_gradient(tracer_for):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = noisy_net(), nn.Linear(3, 3)

        def forward(self, inputs):
            return self.used(inputs)

    model = Two()
    return fit(tracer_for, model, sgd(model, weight_decay=0.1), image=True, missing_gradient="zero")


@style
def experts_that_take_turns(tracer_for):
    """A parameter has a gradient in some steps only, and the optimizer decays it in those only."""

    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts, self.turn = nn.ModuleList(nn.Linear(64, 10) for _ in range(3)), 0

        def forward(self, inputs):
            self.turn += 1  # a plain attribute that the next forward pass depends on
            return self.experts[self.turn % 3](inputs)

    model = Experts()
    return fit(tracer_for, model, sgd(model, weight_decay=0.1), missing_gradient="zero")


def _zeroed(tracer_for, set_to_none):
    model = noisy_net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    with tracer_for(model, optimizer) as tracer:
        for inputs, labels in batches(image=True):
            tracer.loss(lambda: cross_entropy(model(inputs), labels)).backward()  # noqa: B023
            optimizer.step()
            optimizer.zero_grad(set_to_none=set_to_none)
    return model, optimizer


@style
def zero_grad_to_none(tracer_for):
    return _zeroed(tracer_for, True)


@style
def zero_grad_to_zero(tracer_for):
    return _zeroed(tracer_for, False)


def _optimizer(name, make):
    def train(tracer_for):
        model = noisy_net()
        return fit(tracer_for, model, make(model.parameters()), image=True)

    STYLES[name] = train


_optimizer("sgd_foreach", lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, foreach=True))
_optimizer("sgd_fused", lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, fused=True))
_optimizer("adam_foreach_amsgrad", lambda p: torch.optim.Adam(p, lr=0.01, foreach=True, amsgrad=True))
_optimizer("adamw_fused", lambda p: torch.optim.AdamW(p, lr=0.01, fused=True))
_optimizer("weight_decay_coupled", lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1))
_optimizer("weight_decay_decoupled", lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1))
_optimizer("maximize", lambda p: torch.optim.SGD(p, lr=0.01, maximize=True))
_optimizer("rmsprop", lambda p: torch.optim.RMSprop(p, lr=0.01))
_optimizer("adafactor", lambda p: torch.optim.Adafactor(p, lr=0.01))


@style
def deterministic_algorithms(tracer_for):
    torch.use_deterministic_algorithms(True)
    try:
        model = noisy_net()
        return fit(tracer_for, model, sgd(model), image=True)
    finally:
        torch.use_deterministic_algorithms(False)


@style
def float64_parameters(tracer_for):
    model = noisy_net().double()
    return fit(tracer_for, model, sgd(model), image=True, dtype=torch.float64)


@style
def gradient_penalty(tracer_for):
    """Double backward inside the loss."""
    model = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def loss_of(inputs):
        inputs = inputs.clone().requires_grad_()
        output = model(inputs).square().mean()
        (slope,) = torch.autograd.grad(output, inputs, create_graph=True)
        return output + (slope.norm(dim=1) - 1).square().mean()

    with tracer_for(model, optimizer) as tracer:
        for inputs, _ in batches():
            optimizer.zero_grad()
            tracer.loss(lambda: loss_of(inputs)).backward()  # noqa: B023
            optimizer.step()
    return model, optimizer


@style
def recurrent_net_with_a_carried_state(tracer_for):
    """Truncated backpropagation: the closure assigns the state that the next minibatch begins with."""
    model = nn.ModuleDict({"cell": nn.LSTM(8, 12, num_layers=2, dropout=0.3), "head": nn.Linear(12, 10)})
    optimizer = torch.optim.RMSprop(model.parameters(), lr=0.01)
    state = None

    with tracer_for(model, optimizer) as tracer:
        for inputs, labels in batches():
            optimizer.zero_grad()

            def closure(inputs=inputs, labels=labels):
                nonlocal state
                outputs, (h, c) = model["cell"](inputs.reshape(8, 8, 8), state)
                state = h.detach(), c.detach()
                return cross_entropy(model["head"](outputs[-1]), labels)

            tracer.loss(closure).backward()
            optimizer.step()
    return model, optimizer


@style
def minibatches_kept_while_their_buffer_is_used_again(tracer_for):
    model = nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(0.4), nn.Linear(16, 10))
    optimizer = sgd(model)
    buffer = torch.empty(8, 64)
    with tracer_for(model, optimizer, record_batches=True) as tracer:
        for inputs, labels in batches():
            buffer.copy_(inputs)
            optimizer.zero_grad()
            given = {"inputs": buffer, "labels": labels}
            tracer.loss(lambda: cross_entropy(model(buffer), labels), tensors=given).backward()  # noqa: B023
            optimizer.step()
    return model, optimizer


@style
def minibatches_kept_under_accumulation_with_a_gradient_scaler(tracer_for):
    model = noisy_net()
    optimizer = sgd(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    with tracer_for(model, optimizer, record_batches=True, grad_scaler=scaler) as tracer:
        for _ in range(STEPS):
            optimizer.zero_grad()
            for inputs, labels in batches(3, image=True):
                given = {"inputs": inputs, "labels": labels}
                loss = tracer.loss(lambda: cross_entropy(model(inputs), labels), tensors=given)  # noqa: B023
                scaler.scale(loss / 3).backward()
            scaler.step(optimizer)
            scaler.update()
    return model, optimizer


@style
def own_random_generators(tracer_for):
    model = plain_net()
    mine = torch.Generator().manual_seed(5)

    def loss_of(inputs, labels):
        return cross_entropy(model(inputs + 0.1 * torch.randn(inputs.shape, generator=mine)), labels)

    optimizer = sgd(model)
    with tracer_for(model, optimizer, generators=[mine]) as tracer:
        for inputs, labels in batches():
            optimizer.zero_grad()
            tracer.loss(lambda: loss_of(inputs, labels)).backward()  # noqa: B023
            optimizer.step()
    return model, optimizer


@style
def spectral_and_weight_norm(tracer_for):
    first = nn.utils.parametrizations.spectral_norm(nn.Linear(64, 16))
    model = nn.Sequential(first, nn.ReLU(), nn.utils.parametrizations.weight_norm(nn.Linear(16, 10)))
    return fit(tracer_for, model, sgd(model))


@style
def checkpointed_activations(tracer_for):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = noisy_net()

        def forward(self, inputs):
            return torch.utils.checkpoint.checkpoint(self.inner, inputs, use_reentrant=False)

    model = Checkpointed()
    return fit(tracer_for, model, sgd(model), image=True)


@style
def averaged_weights(tracer_for):
    model = noisy_net()
    optimizer = sgd(model)
    average = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    with tracer_for(model, optimizer) as tracer:
        for inputs, labels in batches(image=True):
            optimizer.zero_grad()
            tracer.loss(lambda: cross_entropy(model(inputs), labels)).backward()  # noqa: B023
            optimizer.step()
            average.update_parameters(model)
    return nn.ModuleList([model, average]), optimizer


@style
def torch_compile_aot_eager(tracer_for):
    model = torch.compile(noisy_net(), backend="aot_eager")
    return fit(tracer_for, model, sgd(model), image=True)


@style
def torch_compile(tracer_for):
    model = torch.compile(nn.Sequential(nn.Linear(64, 16), nn.Dropout(0.3), nn.ReLU(), nn.Linear(16, 10)))
    return fit(tracer_for, model, sgd(model))


def run(train: Callable[..., Trained], tracer_for: Callable[..., Any], seed: int = 0) -> Trained:
    """Train one style from ``seed``."""
    import random

    import numpy as np

    torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
    return train(tracer_for)
