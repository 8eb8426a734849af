"""From a CUDA device to the host without the training stream ever waiting for it."""

from collections.abc import Callable, Mapping

import torch

from tracer.store.layout import Layout

Flat = dict[str, torch.Tensor]


class Staging:
    """Two sets of flat device buffers and a side stream that empties them.

    Training copies a step into one set, on its own stream. :meth:`send` lets the side stream wait for that copy, carry
    it to page-locked memory and mark its end. The next use of the same set waits for the mark on the device, so the
    host never waits: only the writer thread does, before it reads.
    """

    SETS = 2

    def __init__(self, layout: Layout, scalars: int, device: torch.device) -> None:
        self._device = device
        self._side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        dtype = getattr(torch, layout.dtype)
        self._sets: list[tuple[Flat, torch.Tensor]] = [
            (
                {s: torch.zeros(layout.parameters, dtype=dtype, device=device) for s in layout.streams},
                torch.zeros(scalars, dtype=torch.float64, device=device),
            )
            for _ in range(self.SETS)
        ]
        self._emptied: list[torch.cuda.Event | None] = [None] * self.SETS
        self._next = 0

    def take(self) -> tuple[Flat, torch.Tensor]:
        """The next set, safe to write on the current stream."""
        self._next = (self._next + 1) % self.SETS
        emptied = self._emptied[self._next]
        if emptied is not None:
            torch.cuda.current_stream(self._device).wait_event(emptied)  # on the device; the host goes on
        return self._sets[self._next]

    def send(self, host: Mapping[str, torch.Tensor], values: torch.Tensor) -> Callable[[], None]:
        """Start carrying the set taken last to the page-locked tensors ``host`` and ``values``.

        Returns:
            a function that waits until they have arrived.
        """
        flat, scalars = self._sets[self._next]
        filled = torch.cuda.Event()  # type: ignore[no-untyped-call]
        filled.record(torch.cuda.current_stream(self._device))
        emptied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._side):
            self._side.wait_event(filled)
            for stream, target in host.items():
                target.copy_(flat[stream], non_blocking=True)
            values.copy_(scalars, non_blocking=True)
            emptied.record(self._side)
        self._emptied[self._next] = emptied
        return emptied.synchronize
