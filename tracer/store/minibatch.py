"""The minibatch of a step as one message: a JSON text and the bytes of its arrays. docs/format.md explains it.

Each part begins at a multiple of 64. Nothing in the text says how long an array is but its dtype and shape, and
together they must fill the message exactly.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tracer.store.layout import Bytes

Array = npt.NDArray[Any]
Message = Sequence[Bytes]  # the pieces of one step's message; none where the step has no minibatch

ALIGN = 64
MAX_DIMENSIONS = 32

_SAME = "uint8 uint16 uint32 uint64 int8 int16 int32 int64 float16 float32 float64 complex64 complex128"
_EIGHT = "float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu"
STORED = {
    "bool": np.dtype(bool),
    **{name: np.dtype(name) for name in _SAME.split()},
    "bfloat16": np.dtype("uint16"),  # numpy has no such dtype; the bits as they are
    **{name: np.dtype("uint8") for name in _EIGHT.split()},
}
"""Dtype of a tensor to the numpy dtype that holds its bits."""


@dataclass(frozen=True)
class MicroBatch:
    """What one call of ``tracer.loss`` evaluated: with gradient accumulation a step has several, in order.

    ``tensors`` are the named arrays, read-only; ``dtypes`` says what each was in training: bfloat16 and float8 come as
    the unsigned integers with their bits. ``weight`` is what backward() multiplied the loss by (loss scaling divided
    out), None if that was not known. ``training`` is the model's train/eval flag and ``exceptions`` names the modules
    that had the other one; ``autocast`` maps each kind of device that was under autocast to its dtype. ``random`` has
    the state of every random stream before the loss drew from one of them, None if it drew from none;
    :func:`tracer.batches.set_random` puts it back.
    """

    tensors: Mapping[str, Array]
    dtypes: Mapping[str, str]
    weight: float | None = None
    training: bool = True
    exceptions: tuple[str, ...] = ()
    autocast: Mapping[str, str] = field(default_factory=dict)
    random: Mapping[str, Array] | None = None


@dataclass(frozen=True)
class ArrayHead:
    """What a message says of one array."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class BatchHead:
    """What a message says of one micro-batch."""

    weight: float | str | None
    training: bool
    exceptions: tuple[str, ...]
    autocast: dict[str, str]
    tensors: tuple[ArrayHead, ...]
    random: tuple[ArrayHead, ...]


def encode(batches: Sequence[MicroBatch]) -> Message:
    """The message of one step; no pieces if there are no batches."""
    heads, arrays = [], []
    for b in batches:
        tensors = tuple(ArrayHead(n, b.dtypes[n], a.shape) for n, a in b.tensors.items())
        random = tuple(ArrayHead(n, str(a.dtype), a.shape) for n, a in (b.random or {}).items())
        weight = b.weight if b.weight is None or math.isfinite(b.weight) else str(b.weight)  # JSON has no infinity
        heads.append(asdict(BatchHead(weight, b.training, b.exceptions, dict(b.autocast), tensors, random)))
        arrays += [*b.tensors.values(), *(b.random or {}).values()]
    if not heads:
        return ()
    text = json.dumps(heads, allow_nan=False).encode()
    pieces: list[Bytes] = [len(text).to_bytes(8, "little") + text + _padding(8 + len(text))]
    for array in arrays:
        pieces += [np.ascontiguousarray(array).reshape(-1).view(np.uint8), _padding(array.nbytes)]
    return [piece for piece in pieces if len(piece)]


def decode(raw: bytes) -> list[MicroBatch]:
    """The micro-batches of a message; arrays are read-only views of ``raw``.

    Raises:
        ValueError: this is no message; nothing larger than ``raw`` was allocated.
    """
    if not raw:
        return []
    length = int.from_bytes(raw[:8], "little")
    if length > len(raw) - 8:
        raise ValueError(f"its JSON has {length} bytes, the message {len(raw)}")
    heads = _heads(raw[8 : 8 + length])
    at = _aligned(8 + length)
    found = []
    for head in heads:
        tensors, at = _arrays(raw, head.tensors, at)
        random, at = _arrays(raw, head.random, at)
        found.append(
            MicroBatch(
                tensors=tensors,
                dtypes={a.name: a.dtype for a in head.tensors},
                weight=None if head.weight is None else float(head.weight),
                training=head.training,
                exceptions=head.exceptions,
                autocast=dict(head.autocast),
                random=random or None,
            )
        )
    if at != len(raw):
        raise ValueError(f"its arrays end at byte {at} of {len(raw)}")
    return found


@lru_cache(maxsize=64)  # of most runs it is one text, at every step
def _heads(text: bytes) -> tuple[BatchHead, ...]:
    try:
        return tuple(_head(entry) for entry in _list(json.loads(text)))
    except RecursionError as error:
        raise ValueError(f"its JSON is not sound ({error})") from None


def _aligned(at: int) -> int:
    return -(-at // ALIGN) * ALIGN


def _padding(length: int) -> bytes:
    return bytes(-length % ALIGN)


def _arrays(raw: bytes, heads: tuple[ArrayHead, ...], at: int) -> tuple[dict[str, Array], int]:
    found: dict[str, Array] = {}
    for head in heads:
        dtype, count = STORED[head.dtype], math.prod(head.shape)
        if at + count * dtype.itemsize > len(raw):
            raise ValueError(f"array {head.name!r:.80} of shape {head.shape!s:.80} reaches behind the message")
        found[head.name] = np.frombuffer(raw, dtype, count, at).reshape(head.shape)
        at = _aligned(at + count * dtype.itemsize)
    return found, at


def _head(entry: Any) -> BatchHead:
    body = _fields(entry, BatchHead)
    weight = body["weight"]
    if weight not in (None, "nan", "inf", "-inf") and type(weight) is not float:
        raise ValueError(f"weight {weight!r:.40}")
    autocast, exceptions = body["autocast"], body["exceptions"]
    if type(body["training"]) is not bool or not isinstance(autocast, dict) or not _texts(autocast.values()):
        raise ValueError("a mode of the wrong type")
    if not _texts(_list(exceptions)):
        raise ValueError("a module's name of the wrong type")
    arrays = {}
    for name in ("tensors", "random"):
        arrays[name] = tuple(_array_head(entry) for entry in _list(body[name]))
        if len({a.name for a in arrays[name]}) < len(arrays[name]):
            raise ValueError(f"{name} with the same name")
    return BatchHead(weight, body["training"], tuple(exceptions), autocast, **arrays)


def _array_head(entry: Any) -> ArrayHead:
    body = _fields(entry, ArrayHead)
    name, dtype, shape = body["name"], body["dtype"], _list(body["shape"])
    if not _texts([name, dtype]) or dtype not in STORED:
        raise ValueError(f"array {name!r:.80} of dtype {dtype!r:.40}")
    if len(shape) > MAX_DIMENSIONS or not all(type(n) is int and 0 <= n < 1 << 62 for n in shape):
        raise ValueError(f"array {name!r:.80} of shape {shape!s:.80}")
    return ArrayHead(name, dtype, tuple(shape))


def _fields(entry: Any, record: type) -> dict[str, Any]:
    if not isinstance(entry, dict) or set(entry) != {f.name for f in fields(record)}:
        raise ValueError("not the fields of this version")
    return entry


def _list(entry: Any) -> list[Any]:
    if not isinstance(entry, list):
        raise ValueError(f"{type(entry).__name__} where a list is expected")
    return entry


def _texts(entries: Any) -> bool:
    return all(isinstance(entry, str) for entry in entries)
