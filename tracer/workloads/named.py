"""The built-in workloads as replay asks for them: ``"tracer.workloads.named:mlp"`` builds the model, knows the loss."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from tracer.workloads.catalogue import workload
from tracer.workloads.workload import Batch, Workload

CHUNK = 1000  # examples of the whole data set that are evaluated at once, unless a workload says another number
NAMES = {1: ("pieces",), 2: ("inputs", "labels")}  # of the tensors of a minibatch, by how many there are


@dataclass(frozen=True)
class Named:
    """A built-in workload whose minibatches are dictionaries of tensors, as they stand in the trace."""

    workload: Workload

    def build(self) -> nn.Module:
        """The model; where its parameters begin does not matter."""
        return self.workload.build_model(0)

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """What training differentiates."""
        return self.workload.loss(model, tuple(batch[name] for name in NAMES[len(batch)]))


@dataclass(frozen=True)
class Whole(Named):
    """One whose data set is small enough to be evaluated whole, ``chunk`` examples at once."""

    chunk: int = CHUNK

    def full_data(self) -> Iterator[dict[str, Tensor]]:
        """The data set, each example once, in the same parts every time."""
        parts = self.workload.examples()
        for start in range(0, len(parts[0]), self.chunk):
            yield tensors(tuple(part[start : start + self.chunk] for part in parts))


def tensors(batch: Batch) -> dict[str, Tensor]:
    """The tensors of a minibatch by name, as ``tracer.loss(tensors=...)`` takes them."""
    return dict(zip(NAMES[len(batch)], batch, strict=True))


def path_of(name: str) -> str:
    """What to give ``Tracer(workload=...)`` for the built-in workload of this name."""
    return f"{__name__}:{name.replace('-', '_')}"


logistic = Whole(workload("logistic"))
adult = Whole(workload("adult"), chunk=1 << 15)
mlp = Whole(workload("mlp"))
cnn = Whole(workload("cnn"))
cnn_batchnorm_dropout = Whole(workload("cnn-batchnorm-dropout"))
gpt = Named(workload("gpt"))
