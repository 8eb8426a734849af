"""What people do without Lemmata: write the point and the gradient of every step with what is at hand.

A peer is made for a folder and a vector length, and called with the step and two float32 vectors of shape ``(d,)``.
None of them hashes, syncs or can tell a whole row from half of one.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import torch

Record = Callable[[int, torch.Tensor, torch.Tensor], object]
Peer = Callable[[Path, int], Record]


def copy_only(folder: Path, size: int) -> Record:
    """No file at all: the least that recording can cost in the training thread."""
    room = torch.empty(2, size)

    def record(step: int, x: torch.Tensor, g: torch.Tensor) -> None:
        room[0].copy_(x)
        room[1].copy_(g)

    return record


def torch_save(folder: Path, size: int) -> Record:
    """One file per step."""
    return lambda step, x, g: torch.save({"x": x, "g": g}, folder / f"{step}.pt")


def naive_h5py(folder: Path, size: int) -> Record:
    """Two datasets that grow by a row, flushed after every step so that a killed process loses nothing."""
    file = h5py.File(folder / "steps.h5", "w")
    rows = {n: file.create_dataset(n, (0, size), "f4", maxshape=(None, size), chunks=True) for n in ("x", "g")}

    def record(step: int, x: torch.Tensor, g: torch.Tensor) -> None:
        for name, row in (("x", x), ("g", g)):
            rows[name].resize(len(rows[name]) + 1, axis=0)
            rows[name][-1] = row.numpy()
        file.flush()

    return record


def zarr(folder: Path, size: int) -> Record:
    """A zarr array per stream, one uncompressed chunk per step."""
    import zarr

    store: Any = zarr.open_group(folder / "steps.zarr", mode="w")
    rows = {
        n: store.create_array(n, shape=(1 << 24, size), chunks=(1, size), dtype="f4", compressors=None)
        for n in ("x", "g")
    }

    def record(step: int, x: torch.Tensor, g: torch.Tensor) -> None:
        rows["x"][step] = x.numpy()
        rows["g"][step] = g.numpy()

    return record


def safetensors(folder: Path, size: int) -> Record:
    """One file per step."""
    from safetensors.torch import save_file

    return lambda step, x, g: save_file({"x": x, "g": g}, folder / f"{step}.safetensors")


PEERS: dict[str, Peer] = {
    "a copy in memory": copy_only,
    "torch.save per step": torch_save,
    "naive h5py": naive_h5py,
    "zarr": zarr,
    "safetensors per step": safetensors,
}


def open_peer(name: str, folder: Path, size: int) -> Record | None:
    """The peer, or None where its package is not installed."""
    os.makedirs(folder)
    try:
        return PEERS[name](folder, size)
    except ModuleNotFoundError:
        return None
