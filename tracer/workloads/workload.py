"""What a training problem is: a model, a loss, and minibatches that can be drawn again."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

Batch: TypeAlias = tuple[Tensor, ...]


@dataclass(frozen=True)
class Workload:
    """A model, its loss and its data, with nothing else hidden between them.

    Attributes:
        name: what it is called on the command line.
        says: one line for a reader.
        build_model: the untrained model for a seed, in train mode; the caller's random state is left as it was.
        loss: the scalar that training differentiates. A pure function of the model's parameters, the batch and, where
            the model has dropout, torch's random state; regularisation is part of it, so it is what theory calls f.
        examples: the whole data set, one tensor per input, equal first dimensions.
        batch_size: examples in a minibatch.
        steps: optimizer updates of a default run.
        learning_rates: default learning rate by optimizer name.
    """

    name: str
    says: str
    build_model: Callable[[int], nn.Module]
    loss: Callable[[nn.Module, Batch], Tensor]
    examples: Callable[[], Batch]
    batch_size: int
    steps: int
    learning_rates: Mapping[str, float]

    def batches(self, seed: int) -> Iterator[tuple[int, int, Batch]]:
        """Yield ``(epoch, batch_id, batch)`` without end.

        Minibatches are independent of one another: what is measured on the minibatch of a step then has the
        expectation it has over the data. Reshuffled epochs do not have that property: they bias the update
        correlation upwards. An epoch here is as many steps as it takes to draw the data set's size in examples.
        """
        examples = self.examples()
        size = len(examples[0])
        for batch_id in count():
            rows = minibatch(seed, batch_id, size, self.batch_size)
            yield batch_id * self.batch_size // size, batch_id, tuple(part[rows] for part in examples)

    def rows(self, seed: int, batch_id: int) -> Tensor:
        """Which rows of :attr:`examples` that minibatch is, int64 of shape ``(batch_size,)``."""
        return torch.from_numpy(minibatch(seed, batch_id, len(self.examples()[0]), self.batch_size))


def minibatch(seed: int, batch_id: int, size: int, batch_size: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Rows of one minibatch, shape ``(batch_size,)``: distinct, and a function of these four numbers alone.

    Example:
        >>> (minibatch(seed=0, batch_id=7, size=100, batch_size=3) == minibatch(0, 7, 100, 3)).all()
        np.True_
    """
    return np.random.default_rng([seed, batch_id]).choice(size, batch_size, replace=False)
