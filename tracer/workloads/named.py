"""The built-in workloads as replay asks for them: ``"tracer.workloads.named:mlp"`` builds the model, knows the loss."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from tracer.errors import UsageError
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

    def data(self) -> dict[str, Tensor]:
        """The data set that minibatches are rows of."""
        return tensors(self.workload.examples())

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


def data_of(name: str) -> dict[str, Tensor]:
    """The data set of a built-in workload that minibatches can be rows of.

    Raises:
        UsageError: it has none that fits into memory.
    """
    found = globals()[name.replace("-", "_")]
    if not isinstance(found, Whole):
        raise UsageError(f"workload {name!r}: its examples are too many to be a table; keep minibatches whole.")
    return found.data()


logistic = Whole(workload("logistic"))
adult = Whole(workload("adult"), chunk=1 << 15)
mlp = Whole(workload("mlp"))
cnn = Whole(workload("cnn"))
cnn_batchnorm_dropout = Whole(workload("cnn-batchnorm-dropout"))
gpt = Named(workload("gpt"))
masked_lm = Named(workload("masked-lm"))
