"""The built-in workloads. Each is one record; :func:`workload` finds it by name."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from tracer.errors import UsageError
from tracer.workloads import datasets
from tracer.workloads.models import CharacterTransformer, group_norm, resnet8
from tracer.workloads.workload import Batch, Workload

L2 = 1e-4  # breast cancer is separable: without it the logistic loss has no minimiser
CENSUS = 117  # columns of the census
CONTEXT, MASKED_CONTEXT = 64, 32
HIDDEN = 0.15  # of the characters that a masked language model is to find


def logistic_model() -> nn.Module:
    """Logistic regression: 30 weights and a bias, from zero."""
    model = nn.Linear(30, 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model


def census_model() -> nn.Module:
    """Logistic regression: 117 weights, from zero; the last is the intercept."""
    model = nn.Linear(CENSUS, 1, bias=False)
    nn.init.zeros_(model.weight)
    return model


def logistic_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean logistic loss plus ``L2 / 2`` times the squared norm of all parameters: strongly convex."""
    inputs, labels = batch
    penalty = sum((parameter.square().sum() for parameter in model.parameters()), torch.zeros(()))
    return functional.binary_cross_entropy_with_logits(model(inputs).squeeze(1), labels) + L2 / 2 * penalty


def mlp_model() -> nn.Module:
    """64 – 64 – 64 – 10 with ReLU."""
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def cnn_model() -> nn.Module:
    """ResNet-8 of width 8 with GroupNorm."""
    return resnet8(group_norm)


def cnn_batchnorm_dropout_model() -> nn.Module:
    """ResNet-8 of width 8 with BatchNorm and dropout: has buffers and draws random numbers."""
    return resnet8(nn.BatchNorm2d, dropout=0.1)


def gpt_model() -> nn.Module:
    """Two layers, width 64, four heads, 64 characters of context."""
    _, alphabet = datasets.shakespeare()
    return CharacterTransformer(alphabet, CONTEXT, width=64, layers=2, heads=4)


def masked_model() -> nn.Module:
    """The same for 32 characters at once, seen from both sides, and one more symbol: that of a hidden one."""
    _, alphabet = datasets.shakespeare()
    return CharacterTransformer(alphabet + 1, MASKED_CONTEXT, width=64, layers=2, heads=4, causal=False)


def classification_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy of the labels."""
    inputs, labels = batch
    return functional.cross_entropy(model(inputs), labels)


def next_character_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy of each next character, in nats."""
    (pieces,) = batch
    return functional.cross_entropy(model(pieces[:, :-1]).flatten(0, 1), pieces[:, 1:].flatten())


def masked_character_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy, in nats, of characters that are hidden at places torch's random state draws."""
    (pieces,) = batch
    hidden = torch.rand(pieces.shape, device=pieces.device) < HIDDEN
    logits = model(pieces.masked_fill(hidden, model.get_parameter("characters.weight").shape[0] - 1))
    return functional.cross_entropy(logits[hidden], pieces[hidden])


def play_pieces(length: int) -> Batch:
    """All pieces of the plays of so many characters."""
    text, _ = datasets.shakespeare()
    return (datasets.windows(text, length),)


def seeded(build: Callable[[], nn.Module]) -> Callable[[int], nn.Module]:
    """Make ``build`` a function of a seed that leaves the caller's random state alone."""

    def build_model(seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build()

    return build_model


WORKLOADS = (
    Workload(
        name="logistic",
        says="logistic regression on breast cancer, 31 parameters, strongly convex",
        build_model=seeded(logistic_model),
        loss=logistic_loss,
        examples=datasets.breast_cancer,
        batch_size=64,
        steps=500,
        learning_rates={"sgd": 0.5, "sgdm": 0.05, "adamw": 0.01},
    ),
    Workload(
        name="adult",
        says="logistic regression on a census, 117 parameters, strongly convex",
        build_model=seeded(census_model),
        loss=logistic_loss,
        examples=datasets.adult,
        batch_size=64,
        steps=4000,
        learning_rates={"sgd": 0.5, "sgdm": 0.05, "adamw": 0.003},
    ),
    Workload(
        name="mlp",
        says="a ReLU network on 8 × 8 digits, 8,970 parameters",
        build_model=seeded(mlp_model),
        loss=classification_loss,
        examples=datasets.digits,
        batch_size=64,
        steps=500,
        learning_rates={"sgd": 0.5, "sgdm": 0.05, "adamw": 0.003},
    ),
    Workload(
        name="cnn",
        says="a small residual network with GroupNorm on MNIST digits, 19,810 parameters",
        build_model=seeded(cnn_model),
        loss=classification_loss,
        examples=datasets.mnist,
        batch_size=64,
        steps=300,
        learning_rates={"sgd": 0.2, "sgdm": 0.05, "adamw": 0.003},
    ),
    Workload(
        name="cnn-batchnorm-dropout",
        says="the same with BatchNorm and dropout: the loss of a minibatch is no mean over its examples",
        build_model=seeded(cnn_batchnorm_dropout_model),
        loss=classification_loss,
        examples=datasets.mnist,
        batch_size=64,
        steps=300,
        learning_rates={"sgd": 0.2, "sgdm": 0.05, "adamw": 0.003},
    ),
    Workload(
        name="gpt",
        says="a two-layer transformer on the characters of Shakespeare's plays, 108,416 parameters",
        build_model=seeded(gpt_model),
        loss=next_character_loss,
        examples=partial(play_pieces, CONTEXT + 1),
        batch_size=16,
        steps=800,
        learning_rates={"sgd": 0.5, "sgdm": 0.2, "adamw": 0.003},
    ),
    Workload(
        name="masked-lm",
        says="the same as a masked language model, 106,432 parameters: the loss draws which characters it hides",
        build_model=seeded(masked_model),
        loss=masked_character_loss,
        examples=partial(play_pieces, MASKED_CONTEXT),
        batch_size=16,
        steps=1200,
        learning_rates={"sgd": 0.5, "sgdm": 0.2, "adamw": 0.002},
    ),
)


def workloads() -> dict[str, Workload]:
    """All built-in workloads by name."""
    return {known.name: known for known in WORKLOADS}


def workload(name: str) -> Workload:
    """The built-in workload of this name.

    Raises:
        UsageError: there is none; the text lists those there are.
    """
    known = workloads()
    if name not in known:
        raise UsageError(f"workload {name!r} is not built in. Choose one of: {', '.join(known)}.")
    return known[name]
