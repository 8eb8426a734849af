"""The manifest: what a run is, in JSON, with its own hash."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tracer.errors import FormatError, UsageError
from tracer.store.files import write_aside
from tracer.store.home import RUN_ID
from tracer.store.layout import (
    DTYPES,
    MANIFEST,
    MAX_PARAMETERS,
    STREAMS,
    VERSION,
    Layout,
    digest,
    streams_in_order,
    without_defaults,
)

MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class Block:
    """One parameter tensor: elements ``[offset, offset + size)`` of every recorded vector."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int
    size: int


@dataclass(frozen=True)
class Manifest:
    """What a run is. ``dtype`` is that of the stored vectors, ``loss_dtype`` that of the loss as it was computed.

    ``attempts`` has one entry per process that recorded; ``ended`` says why recording stopped (None: it has not, or
    the process was killed).
    """

    run_id: str
    created: str
    blocks: tuple[Block, ...]
    streams: tuple[str, ...]
    dtype: str
    hyperparameters: tuple[str, ...] = ()
    loss_dtype: str | None = None
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    frozen_parameters: int = 0
    unrecorded_parameters: int = 0
    attempts: tuple[Mapping[str, Any], ...] = ()
    ended: Mapping[str, Any] | None = None
    branch_of: Mapping[str, Any] | None = None
    certificate: Mapping[str, Any] | None = None
    batches: bool = False  # in the file only if true
    workload: Mapping[str, Any] | None = None  # in the file only if there is one
    data: Mapping[str, Any] | None = None  # in the file only if minibatches are rows of a data set
    format: int = VERSION

    @property
    def parameters(self) -> int:
        """Numbers in one recorded vector, ``d``."""
        return sum(block.size for block in self.blocks)

    @property
    def layout(self) -> Layout:
        """Layout of this run's chunk files."""
        return Layout(self.streams, self.parameters, self.dtype, self.batches)

    def with_(self, **changes: Any) -> "Manifest":
        """A copy with some fields replaced."""
        return replace(self, **changes)


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Replace the manifest of a run at once: a reader sees the old one or the new one.

    Raises:
        UsageError: the configuration holds something JSON cannot, for instance NaN or an object.
        OSError: the file cannot be written.
    """
    body = without_defaults(manifest, "batches", "workload", "data")
    try:
        text = json.dumps({**body, "xxh3": _hash(body)}, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{directory / MANIFEST}: the manifest must be plain JSON (no NaN, no objects): {error}. "
            "Pass config= as numbers, texts, lists and dictionaries."
        ) from None
    write_aside(directory / MANIFEST, text.encode())


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a run directory.

    Raises:
        FormatError: missing, too large, not JSON, damaged, or of a format this version does not know.
    """
    path = directory / MANIFEST
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            raw = file.read() if size <= MAX_BYTES else b""
    except PermissionError as error:
        raise FormatError(f"{path}: {error.strerror}. Make it and its directory readable.") from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise FormatError(
            f"{path}: {reason}. {directory} is not a recorded run, or its manifest was removed."
        ) from None
    if size > MAX_BYTES:
        raise FormatError(f"{path}: {size} bytes, larger than {MAX_BYTES}; this is no manifest of a recorded run.")
    try:
        body = json.loads(raw)
        if not isinstance(body, dict):
            raise ValueError("expected an object")
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not readable as JSON ({error}); the manifest is damaged.") from None
    if body.get("format") != VERSION:
        raise FormatError(
            f"{path}: field 'format' holds {body.get('format')!r:.40}; this version of lemmata reads {VERSION}. "
            "Install the version that recorded this run."
        )
    try:
        if body.pop("xxh3", None) != _hash(body):
            raise ValueError("its hash does not match its content: damaged or edited")
        return _parse(body)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        found = f"field {error} is missing" if isinstance(error, KeyError) else f"{error!s:.200}"
        raise FormatError(f"{path}: {found}. This is no sound manifest: restore it from a copy.") from None


def _hash(body: Mapping[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"{digest(canonical.encode()):016x}"


def _parse(body: dict[str, Any]) -> Manifest:
    fields = dict(body)
    fields["blocks"] = _blocks(fields["blocks"])
    for name in ("streams", "hyperparameters", "attempts"):
        fields[name] = tuple(fields[name])
    manifest = Manifest(**fields)
    if not isinstance(manifest.run_id, str) or not RUN_ID.fullmatch(manifest.run_id):
        raise ValueError(f"run_id {manifest.run_id!r:.60} is not a valid run id")
    if manifest.dtype not in DTYPES:
        raise ValueError(f"dtype {manifest.dtype!r:.40} is none of {DTYPES}")
    if not all(isinstance(name, str) for name in manifest.streams) or not streams_in_order(manifest.streams):
        raise ValueError(f"streams {manifest.streams!r:.60} are not some of {', '.join(STREAMS)} in that order")
    if not all(isinstance(name, str) for name in manifest.hyperparameters):
        raise ValueError("hyperparameters must be names")
    if type(manifest.batches) is not bool:
        raise ValueError("batches must be true or false")
    for name in ("ended", "certificate", "workload", "data"):
        if not isinstance(getattr(manifest, name), dict | None):
            raise ValueError(f"{name} must be an object or null")
    return manifest


def _blocks(entries: list[dict[str, Any]]) -> tuple[Block, ...]:
    blocks: list[Block] = []
    at = 0
    for entry in entries:
        block = Block(entry["name"], tuple(entry["shape"]), entry["dtype"], entry["offset"], entry["size"])
        size = 1
        for extent in block.shape:
            if not isinstance(extent, int) or extent < 0:
                raise ValueError(f"block {block.name!r:.60}: shape {block.shape!r:.60}")
            size *= extent
        if not isinstance(block.name, str) or (block.size, block.offset) != (size, at):
            raise ValueError(f"block {block.name!r:.60}: size or offset does not fit its shape and place")
        at += size
        if at > MAX_PARAMETERS:
            raise ValueError(f"more than {MAX_PARAMETERS} parameters")
        blocks.append(block)
    if not blocks or len({b.name for b in blocks}) != len(blocks):
        raise ValueError("blocks must be there, and their names different")
    return tuple(blocks)
