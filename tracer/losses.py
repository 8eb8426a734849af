"""The losses of one step: one per micro-batch, each with the weight that backward() gives it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from tracer.errors import UsageError
from tracer.probe import Answer, Closure, fill
from tracer.scaling import Scale, unscaled
from tracer.subject import Subject, Views
from tracer.surroundings import Moment

LOSS_OF = {"g": "loss", "h": "loss_previous", "a": "loss_next"}  # the record column of the loss beside a gradient


@dataclass
class Later:
    """A question to be asked after the update, at x_{t+1}; ``weight`` is known once backward() has run."""

    closure: Closure
    as_of: Moment
    scale: Scale
    weight: torch.Tensor | None = None


class Losses:
    """Sums the losses and probe gradients of a step's micro-batches as ``backward()`` weighs them.

    A hook on each loss, which changes nothing, reads what backward() multiplies it by: 1, one n-th under accumulation,
    the loss scale under mixed precision (divided out again here). Sums of losses are float64.

    Args:
        streams: those that a probe fills; each gets one flat device tensor.
        columns: of :attr:`totals`, by the stream of the gradient beside the loss; a stream without one has no loss.
    """

    def __init__(self, subject: Subject, streams: tuple[str, ...], columns: Mapping[str, str] = LOSS_OF) -> None:
        self._dtype, self._columns = subject.dtype, columns
        device = subject.parameters[0].device
        size = sum(block.size for block in subject.blocks)
        self.flat = {s: torch.zeros(size, dtype=subject.dtype, device=device) for s in streams}
        self._views = Views(subject)
        self.forget()

    def forget(self) -> None:
        """The step is over."""
        self.asked = self.weighed = 0  # losses given out, and those of them that backward() has seen
        self.totals: dict[str, torch.Tensor | float] = {}  # record column to loss
        self.filled: set[str] = set()
        self.later: list[Later] = []

    def add(
        self,
        loss: torch.Tensor,
        answers: Mapping[str, Answer],
        later: Later | None,
        scale: Scale,
        then: Callable[[], None],
    ) -> None:
        """Expect ``loss`` to go backward; ``answers`` are those of the probes to the same minibatch, by stream.

        ``then`` is called inside backward(). ``scale`` is the loss scale.
        """
        value = loss.detach()
        self.asked += 1

        def weigh(weight: torch.Tensor) -> None:
            weight = unscaled(weight.detach(), scale)
            self.weighed += 1
            self._total("g", value, weight)
            for stream, answer in answers.items():
                self.put(stream, answer, weight)
            if later is not None:
                later.weight = weight
                self.later.append(later)
            then()

        loss.register_hook(weigh)  # type: ignore[no-untyped-call]

    def put(self, stream: str, answer: Answer, weight: torch.Tensor) -> None:
        """Add a probe's loss and gradient, times ``weight``, to those of the micro-batches before."""
        value, gradient = answer
        times = None if weight.is_cpu and weight.item() == 1.0 else weight.to(self._dtype)
        fill(self._views(self.flat[stream]), gradient, times, add=stream in self.filled)
        self.filled.add(stream)
        self._total(stream, value, weight)

    def tensors(self) -> list[torch.Tensor]:
        """The sums so far, to be changed in place: each loss, a scalar, and each probe's gradient, shape ``(d,)``."""
        losses = {
            n: torch.tensor(v, dtype=torch.float64) if isinstance(v, float) else v for n, v in self.totals.items()
        }
        self.totals = dict(losses)
        return [*losses.values(), *(self.flat[s] for s in sorted(self.filled))]

    def check(self, step: int, needed: bool) -> None:
        """Raise :class:`UsageError` unless backward() has seen every loss given out (and there is one if needed)."""
        if self.weighed != self.asked or (needed and not self.asked):
            raise UsageError(
                f"step {step}: tracer.loss() was called {self.asked} times and backward() reached "
                f"{self.weighed} of its losses before optimizer.step(). "
                "In each step, call loss = tracer.loss(lambda: ...) and loss.backward()."
            )

    def _total(self, stream: str, value: torch.Tensor, weight: torch.Tensor) -> None:
        if stream not in self._columns:
            return
        part: torch.Tensor | float
        if value.is_cpu and weight.is_cpu:
            part = float(value.item()) * float(weight.item())
        else:  # nobody waits for the device
            part = (value.double() * weight.double()).reshape(())
        name = self._columns[stream]
        self.totals[name] = self.totals[name] + part if name in self.totals else part


def differentiable(loss: object) -> torch.Tensor:
    """``loss`` if backward() can start from it.

    Raises:
        UsageError: it is no scalar tensor, or has no graph.
    """
    if isinstance(loss, torch.Tensor) and loss.numel() == 1 and loss.requires_grad:
        return loss
    found = type(loss).__name__
    if isinstance(loss, torch.Tensor):
        found = f"shape {tuple(loss.shape)}, requires_grad={loss.requires_grad}"
    raise UsageError(
        f"tracer.loss: the closure must return a scalar tensor that backward() can differentiate; found {found}. "
        "Return the training loss itself, neither detached nor computed under torch.no_grad()."
    )
