"""The networks of the built-in workloads. Shapes in, shapes out; no data, no training."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Norm = Callable[[int], nn.Module]


def group_norm(channels: int) -> nn.Module:
    """Normalise each example on its own, so that the loss of a minibatch is the mean of its examples' losses."""
    return nn.GroupNorm(4, channels)


class Residual(nn.Module):
    """Two 3 × 3 convolutions beside a shortcut: ``(n, c, h, w)`` to ``(n, out, h / stride, w / stride)``."""

    def __init__(self, channels: int, out: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(channels, out, 3, stride, 1, bias=False), norm(out), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(out, out, 3, 1, 1, bias=False), norm(out))
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), norm(out))

    def forward(self, images: Tensor) -> Tensor:
        """Return the activations."""
        return functional.relu(self.second(self.first(images)) + self.shortcut(images))


def resnet8(norm: Norm, width: int = 8, classes: int = 10, dropout: float = 0.0) -> nn.Sequential:
    """A residual network of eight layers for ``(n, 1, 28, 28)`` images; returns logits ``(n, classes)``."""
    layers = [
        nn.Sequential(nn.Conv2d(1, width, 3, 2, 1, bias=False), norm(width), nn.ReLU()),
        Residual(width, width, 1, norm),
        Residual(width, 2 * width, 2, norm),
        Residual(2 * width, 4 * width, 2, norm),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    ]
    if dropout:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(4 * width, classes))


class Attention(nn.Module):
    """Self-attention on ``(n, length, width)``, written out so that it can be differentiated twice.

    Where it is ``causal``, a token sees no later one.
    """

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the mixed tokens."""
        n, length, width = tokens.shape
        parts = self.queries_keys_values(tokens).reshape(n, length, 3, self.heads, width // self.heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        scores = queries @ keys.transpose(-2, -1) / math.sqrt(width // self.heads)
        if self.causal:
            future = torch.ones(length, length, dtype=torch.bool, device=tokens.device).triu(1)
            scores = scores.masked_fill(future, -math.inf)
        mixed = scores.softmax(dim=-1) @ values
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(n, length, width))
        return out


class TransformerBlock(nn.Module):
    """Attention and a two-layer network, each normalised before and added to its input."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.LayerNorm(width), Attention(width, heads, causal))
        self.think = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width, bias=False),
            nn.GELU(),
            nn.Linear(4 * width, width, bias=False),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens of the same shape."""
        tokens = tokens + self.mix(tokens)
        out: Tensor = tokens + self.think(tokens)
        return out


class CharacterTransformer(nn.Module):
    """Tied embeddings, no dropout: characters ``(n, length)`` to logits ``(n, length, alphabet)``.

    ``causal``: a decoder, whose logits are those of the next character.
    """

    def __init__(self, alphabet: int, context: int, width: int, layers: int, heads: int, causal: bool = True) -> None:
        super().__init__()
        self.characters = nn.Embedding(alphabet, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads, causal) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.characters.weight, std=0.02)
        nn.init.normal_(self.positions.weight, std=0.02)

    def forward(self, characters: Tensor) -> Tensor:
        """Return the logits of each place."""
        places = torch.arange(characters.shape[1], device=characters.device)
        hidden = self.norm(self.blocks(self.characters(characters) + self.positions(places)))
        return functional.linear(hidden, self.characters.weight)
