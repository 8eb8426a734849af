"""Mixed precision: what a gradient scaler says, and what it does unannounced."""

import sys

import torch

from tracer.errors import UsageError

Scale = float | torch.Tensor  # a tensor, of no dimension, where the host does not know the number


def unscaled(tensor: torch.Tensor, scale: Scale) -> torch.Tensor:
    """``tensor`` divided by the loss scale, without waiting for a device."""
    if isinstance(scale, torch.Tensor):
        return tensor / scale.to(tensor.device, non_blocking=True)
    return tensor if scale == 1.0 else tensor / scale


def on_host(tensor: torch.Tensor) -> bool:
    """Whether its value can be read without waiting for a device."""
    return tensor.is_cpu


class Scaling:
    """The loss scale of the present step, and whether the scaler left out an update.

    Args:
        scaler: the user's ``torch.amp.GradScaler``, or None.
    """

    def __init__(self, scaler: "torch.amp.GradScaler | None", optimizer: torch.optim.Optimizer) -> None:
        self._scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self._optimizer = optimizer
        self._known = scaler is not None
        self._asked = False  # whether somebody else's scaler was looked for
        self._round: object = None  # of the scaler, which makes a new dictionary in every update()
        self.scale: Scale = 1.0

    def backward_begins(self) -> None:
        """Take note that a loss goes backward before the scaler's next ``update()``."""
        if self._scaler is not None:
            self._round = self._scaler._per_optimizer_states

    def dropped(self) -> bool:
        """Read the scale anew; whether the scaler's ``update()`` came after the last loss went backward.

        If the optimizer's step did not come in between, the scaler left it out. That, unlike the scale, which falls
        then, can be known without waiting for a device.
        """
        if self._scaler is None:
            return False
        scale = self._scaler._scale  # None before the first loss is scaled
        if scale is None or on_host(scale):
            self.scale = float(self._scaler.get_scale())
        else:
            self.scale = scale.clone()  # update() changes it in place
        before, self._round = self._round, self._scaler._per_optimizer_states
        return before is not None and before is not self._round

    def require_unscaled(self, step: int) -> None:
        """Raise :class:`UsageError` if the gradients are still multiplied by the loss scale."""
        if self._scaler is None:
            return
        state = self._scaler._per_optimizer_states.get(id(self._optimizer), {})
        if getattr(state.get("stage"), "name", "") != "UNSCALED":
            raise UsageError(
                f"step {step}: the gradients are still multiplied by the loss scale. "
                "Call scaler.unscale_(optimizer) before you clip."
            )

    def refuse_unknown(self) -> None:
        """Called in the optimizer's step: raise :class:`UsageError` if a scaler that nobody mentioned called it."""
        if self._known or self._asked:
            return
        self._asked = True
        frame = sys._getframe(1)
        for _ in range(12):
            if frame.f_back is None:
                return
            frame = frame.f_back
            scaler = frame.f_locals.get("self") if frame.f_code.co_name == "step" else None
            if isinstance(scaler, torch.amp.GradScaler) and scaler.is_enabled():
                raise UsageError(
                    "a GradScaler steps this optimizer, and the recorded losses would be multiplied by its scale. "
                    "Pass it to the tracer: Tracer(..., grad_scaler=scaler)."
                )

    def left_out(self) -> bool:
        """Whether a fused optimizer, asked to do so by the scaler, is about to leave out this update.

        Known without waiting for a device only on the CPU; elsewhere the infinite gradient in the trace says it.
        """
        found = getattr(self._optimizer, "found_inf", None)
        return isinstance(found, torch.Tensor) and found.device.type == "cpu" and bool(found.item())
