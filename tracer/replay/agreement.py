"""Is it the recorded loss that is replayed? How far the two are apart is the noise of everything that was replayed."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tracer.errors import LemmataError
from tracer.store.manifest import Manifest

ALIKE = 1e-3  # of the size of losses: rounding of another device or version stays far below, another loss does not
ALIKE_LOW = 5e-2  # where losses were computed in 16 bits
GRADIENTS_ALIKE = 1e-2


@dataclass(frozen=True)
class Agreement:
    """Replayed losses beside recorded ones.

    Args:
        steps: how many were compared.
        sigma: root of the mean squared difference, σ_f: the noise floor of a replayed loss.
        largest: the largest absolute difference, and ``step`` where; None if no two differ.
        scale: median absolute recorded loss.
        apart: steps at which one is finite and the other is not.
        gradient: median of ‖replayed g − g‖ / ‖g‖.
        bitwise: every loss and every gradient came back bit for bit.
    """

    steps: int
    sigma: float
    largest: float
    step: int | None
    scale: float
    apart: int
    gradient: float
    bitwise: bool

    @classmethod
    def of(cls, repeat: pa.Table) -> "Agreement":
        """From the table ``repeat``."""
        columns = {name: repeat[name].to_numpy().astype(float) for name in repeat.column_names}
        loss, again = columns["loss"], columns["replayed"]
        both = np.isfinite(loss) & np.isfinite(again)
        apart = np.abs(loss[both] - again[both])
        moved = (columns["g_g"] > 0) & np.isfinite(columns["slip_slip"])
        slips = np.sqrt(columns["slip_slip"][moved] / columns["g_g"][moved])
        differs = len(apart) > 0 and apart.max() > 0
        return cls(
            steps=len(loss),
            sigma=float(np.sqrt(np.mean(apart**2))) if len(apart) else 0.0,
            largest=float(apart.max()) if len(apart) else 0.0,
            step=int(columns["step"][both][apart.argmax()]) if differs else None,
            scale=float(np.median(np.abs(loss[both]))) if len(apart) else 0.0,
            apart=int((np.isfinite(loss) != np.isfinite(again)).sum()),
            gradient=float(np.median(slips)) if len(slips) else 0.0,
            bitwise=not differs and bool((np.isfinite(loss) == np.isfinite(again)).all()) and not slips.any(),
        )

    def as_json(self, manifest: Manifest) -> dict[str, Any]:
        """For the index of the results; ``doubt`` says why this may not be the recorded loss, None where it is.

        ``alike``: whether the losses are the recorded ones up to rounding, so that ``sigma`` is noise of the recording,
        too. Gradients that were changed before the update do not touch that.
        """
        problem = self.problem(manifest)
        return {**asdict(self), "alike": problem is None, "doubt": problem or self._gradients()}

    def _gradients(self) -> str | None:
        if math.isfinite(self.gradient) and self.gradient <= GRADIENTS_ALIKE:
            return None
        return (
            f"losses agree, but replayed gradients differ from the recorded ones by {self.gradient:.2g} of their "
            "norm in the median; were they changed before the update?"
        )

    def problem(self, manifest: Manifest) -> str | None:
        """In words why this is not the loss that was recorded; None if it is."""
        low = manifest.loss_dtype in ("float16", "bfloat16")
        allowed = (ALIKE_LOW if low else ALIKE) * self.scale
        if not self.steps:
            return "no step has a loss, a gradient and a minibatch to compare with"
        if self.apart:
            return f"at {self.apart} of {self.steps} steps one of recorded and replayed loss is finite, the other not"
        if self.sigma > allowed:
            return (
                f"replayed losses differ from the recorded ones by {self.sigma:.3g} on average (at step {self.step} by "
                f"{self.largest:.3g}), where losses are about {self.scale:.3g}; rounding explains up to {allowed:.3g}"
            )
        return None

    def require(self, manifest: Manifest, accept: bool) -> str | None:
        """What a reader must be told, if anything.

        Raises:
            LemmataError: it is not the recorded loss, and the user does not accept that.
        """
        problem = self.problem(manifest)
        if problem is not None and not accept:
            raise LemmataError(
                f"{manifest.run_id}: {problem}. This is not the loss that was recorded: compare workload, data, "
                f"versions (torch {manifest.versions.get('torch')} recorded it) and device; buffers are not in a "
                "trace, so a loss that reads one needs it among its tensors. To go on all the same: "
                "--accept-disagreement."
            )
        if problem is not None:
            return f"{problem}; accepted on request, so nothing here is about the recorded loss"
        if (gradients := self._gradients()) is not None:
            return gradients
        if not self.bitwise:
            return f"losses agree up to rounding, σ_f = {self.sigma:.3g}, not bit for bit"
        return None
