"""The formulas of torch's optimizers, as numbers per step: what an update would be by the book.

Every update of SGD, Adam and AdamW has the form

    u = ± clamp(clip · g) + couple · x        the gradient as the optimizer sees it
    m = keep_m · m + take_m · u               first moment
    v = keep_v · v + take_v · u²              second moment (Adam)
    D = root · √v + eps                       its metric (Adam; 1 for SGD)
    Δ = −rate · (along · m + ahead · u) / D − decay · x

so that one kernel (:mod:`analysis.vectors.dynamics_kernel`) computes all of them from the :data:`NUMBERS` of step and
block.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from analysis.arrays import filled
from tracer.store.manifest import Manifest

NUMBERS = (
    *("clip", "clamp", "couple", "keep_m", "take_m", "keep_v", "take_v"),
    *("along", "ahead", "root", "eps", "rate", "decay", "hat", "scale", "apart"),
)
"""``hat`` is 1/(1 − β₁ⁿ), ``scale`` the random factor that the recorded step has and the formula has not, ``apart`` the
decoupled weight decay λ, so that ``decay`` is lr λ."""
CLIP, CLAMP, COUPLE, KEEP_M, TAKE_M, KEEP_V, TAKE_V, ALONG, AHEAD, ROOT, EPS, RATE, DECAY, HAT, SCALE, APART = range(16)
"""Places of the :data:`NUMBERS`."""
STILL = {CLIP: 0.0, COUPLE: 0.0, KEEP_M: 1.0, TAKE_M: 0.0, KEEP_V: 1.0, TAKE_V: 0.0, RATE: 0.0, DECAY: 0.0}
"""What the numbers become where an update leaves a block alone."""

SGD, ADAM = "sgd", "adam"
KINDS = {"torch.optim.sgd.SGD": SGD, "torch.optim.adam.Adam": ADAM, "torch.optim.adamw.AdamW": ADAM}
_SETTINGS = {
    SGD: ("lr", "momentum", "dampening", "weight_decay"),
    ADAM: ("lr", "betas.0", "betas.1", "eps", "weight_decay"),
}
FLAGS = ("nesterov", "maximize", "amsgrad", "decoupled_weight_decay", "capturable", "fused")

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Formula:
    """The optimizer of a run.

    Args:
        kind: :data:`SGD` or :data:`ADAM`.
        flags: per parameter group those of :data:`FLAGS` that are set.
        group_of: for each block its group, shape ``(blocks,)``.
        buffers: streams that hold its moments, by moment ("m", "v", "w": the largest v so far); those recorded.
    """

    kind: str
    flags: tuple[frozenset[str], ...]
    group_of: npt.NDArray[np.int64]
    buffers: Mapping[str, str]

    def stateless(self, records: pl.DataFrame) -> bool:
        """Whether an update needs nothing of the updates before it: SGD without momentum."""
        names = [f"group{i}.momentum" for i in range(len(self.flags))]
        return self.kind == SGD and not any((records[name].drop_nulls() != 0).any() for name in names)

    def numbers(self, records: pl.DataFrame, counts: Array) -> Floats:
        """The numbers of ``n`` steps, shape ``(n, blocks, len(NUMBERS))``; NaN where a setting was not recorded.

        Args:
            records: the step records, one row per step.
            counts: how many updates each block has had after each of them, shape ``(n, blocks)``.
        """
        out = np.empty((*counts.shape, len(NUMBERS)))
        clip = filled(records["clip_factor"], 1.0)
        clamp = filled(records["clip_value"], math.inf)
        scale = filled(records["random_scale"], 1.0)
        of_kind = _sgd if self.kind == SGD else _adam
        for group, flags in enumerate(self.flags):
            chosen = np.flatnonzero(self.group_of == group)
            if not len(chosen):
                continue
            names = (f"group{group}.{name}" for name in _SETTINGS[self.kind])
            settings = [filled(records[name], math.nan)[:, None] for name in names]
            sign = -1.0 if "maximize" in flags else 1.0
            with np.errstate(all="ignore"):  # the setting of a step may be anything
                given = of_kind(settings, counts[:, chosen].astype(np.float64), flags)
            given |= {"clip": sign * clip[:, None], "clamp": clamp[:, None], "scale": scale[:, None]}
            for i, name in enumerate(NUMBERS):
                out[:, chosen, i] = given[name]
        return out


def _sgd(settings: list[Floats], counts: Floats, flags: frozenset[str]) -> dict[str, Any]:
    lr, momentum, dampening, decay = settings
    # torch begins a buffer with the whole gradient, and without momentum has none
    take = np.where((counts <= 1) | (momentum == 0), 1.0, 1.0 - dampening)
    nesterov = "nesterov" in flags
    return {
        "couple": decay,
        "keep_m": momentum,
        "take_m": take,
        "along": np.where(momentum == 0, 1.0, momentum) if nesterov else 1.0,
        "ahead": np.where(momentum == 0, 0.0, 1.0) if nesterov else 0.0,
        "rate": lr,
        **dict.fromkeys(("keep_v", "take_v", "root", "eps", "decay", "apart"), 0.0),
        "hat": 1.0,
    }


def _adam(settings: list[Floats], counts: Floats, flags: frozenset[str]) -> dict[str, Any]:
    lr, beta1, beta2, eps, decay = settings
    hat = 1 / (1 - beta1**counts)
    apart = "decoupled_weight_decay" in flags
    return {
        "couple": 0.0 if apart else decay,
        "keep_m": beta1,
        "take_m": 1 - beta1,
        "keep_v": beta2,
        "take_v": 1 - beta2,
        "along": 1.0,
        "ahead": 0.0,
        "root": 1 / np.sqrt(1 - beta2**counts),
        "eps": eps,
        "rate": lr * hat,
        "decay": lr * decay if apart else 0.0,
        "hat": hat,
        "apart": decay if apart else 0.0,
    }


def formula_of(manifest: Manifest, records: pl.DataFrame) -> Formula | str:
    """The formula of a run's updates, or in words why it is not known.

    Args:
        manifest: of the run.
        records: its step records, with the columns ``group0.lr`` and so on.
    """
    kind = KINDS.get(str(manifest.optimizer.get("class", "")))
    if kind is None:
        found = str(manifest.optimizer.get("class", "")) or "an optimizer without a name"
        return f"the formula of {found} is not known here; known are {', '.join(KINDS)}"
    groups = [group for group in manifest.optimizer.get("groups", ()) if isinstance(group, Mapping)]
    wanted = [f"group{i}.{name}" for i in range(max(len(groups), 1)) for name in _SETTINGS[kind]]
    if absent := [name for name in wanted if name not in records.columns]:
        return f"the step records lack {', '.join(absent)}"
    flags = tuple(_flags(group, kind, manifest) for group in groups or ({},))
    group_of = _group_of(manifest, groups, flags, kind, records)
    if isinstance(group_of, str):
        return group_of
    named = {"m": "momentum_buffer"} if kind == SGD else {"m": "exp_avg", "v": "exp_avg_sq", "w": "max_exp_avg_sq"}
    buffers = {moment: f"buffer:{name}" for moment, name in named.items() if f"buffer:{name}" in manifest.streams}
    return Formula(kind, flags, group_of, buffers)


def optimizer_flags(manifest: Manifest) -> tuple[str, ...]:
    """The flags that are set in every parameter group; one set in some only is followed by "in some groups"."""
    kind = KINDS.get(str(manifest.optimizer.get("class", "")))
    groups = [g for g in manifest.optimizer.get("groups", ()) if isinstance(g, Mapping)]
    if kind is None or not groups:
        return ()
    flags = [_flags(group, kind, manifest) for group in groups]
    everywhere, anywhere = frozenset.intersection(*flags), frozenset.union(*flags)
    return tuple(f if f in everywhere else f"{f} in some groups" for f in FLAGS if f in anywhere)


def _flags(group: Mapping[str, Any], kind: str, manifest: Manifest) -> frozenset[str]:
    found = {name for name in FLAGS if group.get(name) is True}
    # torch before 2.7 has no such flag: its AdamW is decoupled, its Adam is not
    if kind == ADAM and "decoupled_weight_decay" not in group and str(manifest.optimizer["class"]).endswith("AdamW"):
        found.add("decoupled_weight_decay")
    return frozenset(found)


def _group_of(
    manifest: Manifest,
    groups: list[Mapping[str, Any]],
    flags: tuple[frozenset[str], ...],
    kind: str,
    records: pl.DataFrame,
) -> npt.NDArray[np.int64] | str:
    names = [block.name for block in manifest.blocks]
    known = {name: i for i, group in enumerate(groups) for name in group.get("blocks", ())}
    if set(names) <= set(known):
        return np.array([known[name] for name in names])
    columns = [[records[f"group{i}.{name}"] for name in _SETTINGS[kind]] for i in range(len(flags))]
    alike = all(
        mine.equals(first, null_equal=True)
        for column in columns[1:]
        for mine, first in zip(column, columns[0], strict=True)
    )
    if alike and len(set(flags)) == 1:
        return np.zeros(len(names), np.int64)
    return (
        f"its {len(flags)} parameter groups differ in their settings, and this trace does not say which block belongs "
        "to which; traces recorded by this version do"
    )
