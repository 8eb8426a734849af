"""What a tracer checks and writes down before the first step."""

import math
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from operator import index
from typing import Any

import torch

from tracer.dataset import description
from tracer.errors import UsageError
from tracer.plan import Plan
from tracer.source import source_hash, split
from tracer.store.home import check_run_id
from tracer.store.layout import BUFFER
from tracer.store.manifest import Manifest
from tracer.store.run_writer import now
from tracer.subject import Subject

MOST = (1 << 63) - 1  # what an int64 holds
PROBES = {"look_back": ("h",), "look_ahead": ("a",), "half_batches": ("ga", "gb")}  # name to streams


def known(argument: str, values: Iterable[str], expected: Iterable[str]) -> tuple[str, ...]:
    """``values`` as a tuple; raises :class:`UsageError` for one that is not ``expected``."""
    values, expected = tuple(values), tuple(expected)
    for value in values:
        if value not in expected:
            raise UsageError(f"{argument}: {value!r} is not known; expected some of {', '.join(map(repr, expected))}.")
    return values


def whole(argument: str, value: Any, least: int, most: int = MOST) -> int:
    """``value`` as an int; raises :class:`UsageError` for what is no whole number of this range."""
    try:
        number = None if isinstance(value, bool) else index(value)
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        reach = f"from {least} to {most}" if most < MOST else f"of at least {least}"
        raise UsageError(f"{argument}={value!r}: expected a whole number {reach}.")
    return number


def not_negative(argument: str, value: float, finite: bool = False) -> float:
    """``value``; raises :class:`UsageError` unless it is a number of at least 0, ``finite`` if so asked."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not value >= 0 or (finite and value == math.inf):  # nan is not ≥ 0
        raise UsageError(f"{argument}={value!r}: expected a {'finite ' if finite else ''}number of at least 0.")
    return value


def branch(of: Any) -> dict[str, Any] | None:
    """What the manifest says of the run that this one is a branch of."""
    if of is None:
        return None
    expected = f"branch_of={of!r}: expected (run id, step), for instance ('my-run', 1000)"
    if not isinstance(of, tuple | list) or len(of) != 2 or not isinstance(of[0], str):
        raise UsageError(f"{expected}.")
    try:
        return {"run_id": check_run_id(of[0]), "step": whole("step", of[1], 0)}
    except UsageError as error:
        raise UsageError(f"{expected}; {error}") from None


def manifest_of(
    run_id: str,
    subject: Subject,
    plan: Plan,
    probes: tuple[str, ...],
    buffers: tuple[str, ...],
    config: Mapping[str, Any] | None,
    branch_of: tuple[str, int] | None,
    batches: bool,
    changed_updates: str,
    workload: str | None = None,
    data: Mapping[str, torch.Tensor] | None = None,
) -> Manifest:
    """The manifest of a run that has not begun."""
    if data is not None and not batches:
        raise UsageError("data= is what minibatches are rows of; it goes with record_batches=True.")
    asked = {stream for probe in probes for stream in PROBES[probe]}
    packages = ("lemmata", "torch", "numpy", "h5py", "pyarrow")
    return Manifest(
        run_id=run_id,
        created=now(),
        blocks=subject.blocks,
        streams=("x", "g", *(s for s in ("h", "a", "ga", "gb") if s in asked), *(BUFFER + name for name in buffers)),
        dtype=str(subject.dtype).removeprefix("torch."),
        hyperparameters=tuple(h.name for h in subject.hyperparameters()),
        optimizer={**subject.description(), "changed_updates": changed_updates},
        plan={**plan.description(), "probes": list(probes)},
        config=dict(config or {}),
        branch_of=branch(branch_of),
        versions={"python": platform.python_version(), **{name: version(name) for name in packages}},
        frozen_parameters=subject.frozen,
        unrecorded_parameters=subject.unrecorded,
        batches=batches,
        workload=None if workload is None else named(workload),
        data=None if data is None else description(data),
    )


def named(workload: str) -> dict[str, Any]:
    """What the manifest says of a workload, which is not imported here.

    How many threads share a sum decides its last bits, so that number is kept too.
    """
    module, _ = split(workload)
    return {"path": workload, "source": source_hash(module), "threads": torch.get_num_threads()}
