"""What replay needs of a training besides its trace: its model and its loss. Importing them needs the user's leave."""

import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from tracer.errors import UsageError
from tracer.source import source_hash, split

Batch = Mapping[str, torch.Tensor]
OUR_OWN = "tracer.workloads.named"  # comes with this program, which runs already


class Workload(Protocol):
    """An object that lies in a module under some name, and makes the loss of a training again.

    It may also have ``full_data()``, which yields the whole data set as minibatches, the same ones every time: F is
    then the mean of their losses, each weighted by the first extent of its first tensor. And ``generators``, where
    ``Tracer(generators=...)`` was given some: as many, of the same kinds, which the loss draws from. Where minibatches
    were recorded as rows of ``Tracer(data=...)`` it must have ``data()``, which returns that dictionary of tensors.
    """

    def build(self) -> torch.nn.Module:
        """The model as it was trained: parameters of the same names and shapes, the values of frozen ones and buffers.

        Where trained parameters begin does not matter, nor does the train/eval flag of a recorded minibatch: both come
        from the trace. On the whole data set the flags are those of this model.
        """
        ...

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """The scalar that ``tracer.loss`` was given, from the named tensors of one recorded micro-batch."""
        ...


@dataclass(frozen=True)
class Loaded:
    """A workload that was imported.

    Args:
        path: ``"package.module:name"``.
        source: hash of its source, from :func:`tracer.source.source_hash`.
        changed: whether training was recorded with another source.
    """

    workload: Workload
    path: str
    source: str
    changed: bool

    def full_data(self) -> Iterable[Batch] | None:
        """The whole data set from its beginning; None where the workload has none."""
        give = getattr(self.workload, "full_data", None)
        found: Iterable[Batch] | None = None if give is None else give()
        return found

    def data(self) -> Batch | None:
        """The data set that minibatches are rows of; None where the workload has none."""
        give = getattr(self.workload, "data", None)
        found: Batch | None = give() if callable(give) else None
        return found


def load(
    recorded: Mapping[str, Any] | None, given: str | None, allow: Sequence[str], changed_source: bool = False
) -> Loaded:
    """Import the workload of a run, if the user allows that module and its source is the one that was recorded.

    Args:
        recorded: the manifest's ``workload``.
        given: a path that the user gives instead, and thereby allows.
        allow: names of modules that may be imported.
        changed_source: import it also if its source has changed since.

    Raises:
        UsageError: no workload is known, its module is not allowed, its source has changed, or it is no workload.
            Nothing was imported, except in the last case.
    """
    path = given if given is not None else (recorded or {}).get("path")
    if not isinstance(path, str):
        raise UsageError(
            "the run names no workload, so nobody knows how to build its model. Name one: --workload "
            "package.module:name, or Tracer(..., workload='package.module:name') when you record."
        )
    module, name = split(path)
    if given is None and module not in (OUR_OWN, *allow):
        raise UsageError(
            f"the run's workload is {path!r}, and importing the module {module!r} runs its code. If you trust it, "
            f"allow it: --allow {module}"
        )
    source = source_hash(module)
    expected = (recorded or {}).get("source") if path == (recorded or {}).get("path") else None
    changed = expected is not None and source != expected
    if changed and not changed_source:
        raise UsageError(
            f"the source of {module!r} is not what it was when the run was recorded (SHA-256 {source:.12}…, recorded "
            f"{expected!s:.12}…), so its loss may be another one. Go back to the recorded version, or say that the "
            "change does not matter: --changed-source. Losses are compared with the recorded ones either way."
        )
    found: Any = getattr(importlib.import_module(module), name, None)
    if not callable(getattr(found, "build", None)) or not callable(getattr(found, "loss", None)):
        raise UsageError(
            f"workload {path!r} is {type(found).__name__}; expected an object with build() -> torch.nn.Module and "
            "loss(model, batch) -> scalar tensor."
        )
    return Loaded(found, path, source, changed)
