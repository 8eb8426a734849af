"""Minibatches as rows of a data set: kept is which rows, and by what one knows the data set again."""

from collections.abc import Mapping
from typing import Any

import torch
import xxhash

from tracer.errors import UsageError

Tensors = Mapping[str, torch.Tensor]

ROWS = "rows"  # the name of the rows among the tensors of a recorded minibatch
PIECE = 1 << 24  # bytes that are hashed at once


def description(data: Tensors) -> dict[str, Any]:
    """What the manifest says of a data set: how many ``examples``, its ``tensors``, a ``fingerprint`` of all numbers.

    The fingerprint (xxh3, 128 bits) is over names, dtypes, shapes and bytes: it tells a change, not who made it.

    Args:
        data: name to tensor; the first extent of each is the number of examples.

    Raises:
        UsageError: no tensors, or they are not of equally many examples.

    Example:
        >>> description({"inputs": torch.zeros(3, 2), "labels": torch.arange(3)})["tensors"]
        {'inputs': 'float32 (3, 2)', 'labels': 'int64 (3,)'}
    """
    if not data or not all(isinstance(t, torch.Tensor) and t.dim() for t in data.values()):
        raise UsageError(
            f"data: {_kinds(data)}; expected a dictionary of tensors whose first extent is the number of examples."
        )
    sizes = {name: len(t) for name, t in data.items()}
    if len(set(sizes.values())) > 1 or ROWS in sizes:
        raise UsageError(
            f"data: {sizes} examples; expected as many in each tensor, and none of the name {ROWS!r}, which is that of "
            "the rows."
        )
    tensors = {name: f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for name, t in data.items()}
    state = xxhash.xxh3_128()
    for name, t in sorted(data.items()):
        state.update(f"{name} {tensors[name]}\n".encode())
        step = max(1, PIECE // max(1, t[:1].nbytes))
        for start in range(0, len(t), step):
            piece = t[start : start + step].detach().cpu().contiguous().reshape(-1)
            state.update(piece.view(torch.uint8).numpy().data)
    return {"examples": next(iter(sizes.values())), "tensors": tensors, "fingerprint": state.hexdigest()}


def require(data: Tensors | None, recorded: Mapping[str, Any], workload: str) -> Tensors:
    """The data set of a workload, if minibatches were recorded as rows of this very one.

    Raises:
        UsageError: it is not there, or another one; the text says in what they differ.
    """
    if data is None:
        raise UsageError(
            f"the run's minibatches are rows of a data set ({recorded['tensors']}), and the workload {workload!r} has "
            "no data(). Give it one that returns that dictionary of tensors."
        )
    found = description(data)
    if found["fingerprint"] == recorded["fingerprint"]:
        return data
    for name in ("examples", "tensors", "fingerprint"):
        if found[name] != recorded[name]:
            what = "the same shapes with other numbers, fingerprint" if name == "fingerprint" else name
            raise UsageError(
                f"data() of the workload {workload!r} is not the data set that minibatches were recorded from: it has "
                f"{what} {found[name]}, recorded was {recorded[name]}. Rows of it would be other examples. Give it the "
                "data as they were: the same file, the same preprocessing, the same order."
            )
    return data


def chosen(data: Tensors, rows: torch.Tensor) -> dict[str, torch.Tensor]:
    """Those rows of every tensor, on its device.

    Raises:
        UsageError: the data set has no such row.
    """
    check(rows, len(next(iter(data.values()))))
    return {name: t[rows.to(t.device)] for name, t in data.items()}


def check(rows: object, examples: int) -> None:
    """Raise :class:`UsageError` unless ``rows`` are numbers of examples; a device is not waited for."""
    if not isinstance(rows, torch.Tensor) or rows.dim() != 1 or rows.is_floating_point() or rows.dtype == torch.bool:
        found = f"{rows.dtype} {tuple(rows.shape)}" if isinstance(rows, torch.Tensor) else type(rows).__name__
        raise UsageError(f"rows: {found}; expected a tensor of integers, one per example of the minibatch.")
    if rows.is_cpu and rows.numel() and (int(rows.min()) < 0 or int(rows.max()) >= examples):
        raise UsageError(f"rows: {int(rows.min())} to {int(rows.max())}; the data set has rows 0 to {examples - 1}.")


def _kinds(data: object) -> str:
    if isinstance(data, Mapping):
        return f"{ {name: type(t).__name__ for name, t in data.items()} }"
    return type(data).__name__
