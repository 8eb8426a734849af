"""Guesses of the next point, so that the archive stores only how far each guess is off.

Training computes a point from the one before and the gradients, all of which the trace holds. So the best guess repeats
the optimizer's formula; what is left are its last bits, and the points cost almost nothing. The numbers of the formula
stand in the archive, per step: reading it needs no knowledge of optimizers. A wrong formula costs bytes, never a value.

The formula is made of single additions, multiplications, divisions and square roots, which IEEE 754 rounds the same way
on every machine (:func:`is_exact` looks whether this process has switched that off).
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer.store.manifest import Manifest

Array = npt.NDArray[Any]
NUMBERS = ("clip", "couple", "keep_m", "take_m", "keep_v", "take_v", "ahead", "root", "eps", "rate", "decay")
REPLAY, LINE, LAST = "replay", "line", "last"
KINDS = (REPLAY, LINE, LAST)


class Guess:
    """The guess for the next point on one range of columns; begins with zero."""

    def __init__(self, kind: str, dtype: str, columns: int) -> None:
        self.kind = kind
        self.bits = np.zeros(columns, f"<u{np.dtype(dtype).itemsize}")
        self._float = self.bits.view(dtype)
        if kind == REPLAY:
            self._m, self._v = np.zeros(columns, dtype), np.zeros(columns, dtype)
        elif kind == LINE:
            self._before: Array | None = None

    def advance(self, x: Array, g: Array | None, numbers: Array, scratch: Array) -> None:
        """Go on to the next step: ``x`` and ``g`` are bits, ``numbers`` the step's :data:`NUMBERS` in their dtype.

        ``scratch`` has shape (2, columns) or more; callers compute under ``np.errstate(all="ignore")``.
        """
        if self.kind == REPLAY and g is not None and numbers.any():
            self._replay(x.view(self._float.dtype), g.view(self._float.dtype), numbers, scratch)
        elif self.kind == LINE:
            before = x if self._before is None else self._before
            np.subtract(x, before, out=self.bits)
            np.add(self.bits, x, out=self.bits)
            self._before = x.copy()
        else:
            np.copyto(self.bits, x)

    def _replay(self, x: Array, g: Array, numbers: Array, scratch: Array) -> None:
        """u = clip g + couple x;  m = keep m + take u;  v = keep v + take u²;  the step is along m + ahead u."""
        clip, couple, keep_m, take_m, keep_v, take_v, ahead, root, eps, rate, decay = numbers
        u, w = scratch[0, : len(x)], scratch[1, : len(x)]
        if clip != 1 or couple:
            np.multiply(g, clip, out=u)
            if couple:
                np.multiply(x, couple, out=w)
                np.add(u, w, out=u)
            g = u
        np.multiply(self._m, keep_m, out=self._m)
        np.multiply(g, take_m, out=w)
        np.add(self._m, w, out=self._m)
        step = self._m
        if ahead:
            np.multiply(g, ahead, out=w)
            step = np.add(self._m, w, out=self._float)
        if take_v:
            np.multiply(g, g, out=w)
            np.multiply(w, take_v, out=w)
            np.multiply(self._v, keep_v, out=self._v)
            np.add(self._v, w, out=self._v)
            np.sqrt(self._v, out=w)
            np.multiply(w, root, out=w)
            np.add(w, eps, out=w)
            step = np.divide(step, w, out=w)
        np.multiply(step, rate, out=w)
        np.multiply(x, decay, out=u)
        np.subtract(u, w, out=self._float)
        undefined = np.isnan(self._float)
        if undefined.any():  # machines differ in the bits of a NaN they make, not in those of one they copy
            np.copyto(self.bits, x.view(self.bits.dtype), where=undefined)


def replay_numbers(manifest: Manifest, records: pa.Table) -> Array | None:
    """The optimizer's formula per step, shape ``(T, len(NUMBERS))`` in float64; None where it is not known.

    Known are SGD, Adam and AdamW. Of several parameter groups the first one's numbers are taken for all. A row of zeros
    means that the point does not move.
    """
    kind = str(manifest.optimizer.get("class", "")).rpartition(".")[2]
    groups = manifest.optimizer.get("groups")
    fixed = groups[0] if isinstance(groups, list) and groups and isinstance(groups[0], dict) else {}
    adam = ("lr", "betas.0", "betas.1", "eps", "weight_decay")
    known: dict[str, tuple[str, ...]] = {"SGD": ("lr", "momentum", "dampening", "weight_decay")}
    known |= {"Adam": adam, "AdamW": adam}
    columns = [f"group0.{name}" for name in known.get(kind, ("?",))]
    if fixed.get("amsgrad") or not set(columns) <= set(records.column_names):
        return None
    moved = records["has_g"].to_numpy()
    clip = records["clip_factor"].fill_null(1.0).to_numpy() * (-1.0 if fixed.get("maximize") else 1.0)
    numbers = np.zeros((len(moved), len(NUMBERS)))
    updates = np.cumsum(moved)
    rows = zip(*(records[c].fill_null(math.nan).to_numpy().tolist() for c in columns), strict=True)
    for t, row in enumerate(rows):
        if not moved[t] or not all(map(math.isfinite, row)):
            continue
        if kind == "SGD":
            rate, momentum, dampening, decay = row
            take = 1.0 if updates[t] == 1 or not momentum else 1 - dampening  # torch begins with the whole gradient
            ahead = 1 / momentum if fixed.get("nesterov") and momentum else 0.0
            rate *= momentum if ahead else 1.0
            numbers[t] = (clip[t], decay, momentum, take, 0, 0, ahead, 0, 0, rate, 1)
        else:
            rate, beta1, beta2, eps, decay = row
            n = int(updates[t])
            if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
                return None
            apart = fixed.get("decoupled_weight_decay", kind == "AdamW")
            coupled, kept = (0.0, 1 - rate * decay) if apart else (decay, 1.0)
            root = 1 / math.sqrt(1 - beta2**n)
            moments = (beta1, 1 - beta1, beta2, 1 - beta2)
            numbers[t] = (clip[t], coupled, *moments, 0, root, eps, rate / (1 - beta1**n), kept)
    return numbers


def is_exact() -> bool:
    """Whether this thread rounds as IEEE 754 says: libraries may flush the smallest numbers to zero."""
    cases: tuple[tuple[Any, float, float], ...] = (
        (np.float32, 2.0**-126, 2.0**-24),
        (np.float64, 2.0**-1022, 2.0**-53),
    )
    for dtype, tiny, half in cases:
        small, near = np.full(9, tiny, dtype) * dtype(0.5), np.ones(9, dtype)
        sound = [small > 0, small + small == dtype(tiny), near + dtype(half) == 1, -near - dtype(half) == -1]
        sound.append(near + dtype(3 * half) == dtype(1 + 4 * half))
        if not np.all(sound):
            return False
    return True
