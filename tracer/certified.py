"""One training for ``lemmata certify``, in a process of its own: ``python -m tracer.certified TASK``, a JSON text."""

import importlib.util
import json
import random
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tracer.certificate import Array, fingerprint, state_of
from tracer.errors import UsageError
from tracer.recorder import Tracer
from tracer.untraced import Untraced


class _Enough(BaseException):
    """The step that was asked for is done. Not an Exception, so that no training loop catches it."""


class Watched:
    """Gives the script its tracer, and takes a fingerprint after each step, whatever the tracer is."""

    def __init__(self, run: str | None, probes: list[str], until: int | None) -> None:
        self.steps: list[int] = []
        self.state: dict[str, Array] = {}
        self.tracer: Tracer | Untraced | None = None
        self._run, self._probes, self._until = run, probes, until

    def tracer_for(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, **options: Any) -> Tracer | Untraced:
        """A tracer for the script: a real one, or one that does nothing."""
        if self.tracer is not None:
            raise UsageError("train() asked for a second tracer; one model and optimizer are certified at a time.")
        options = {"probes": self._probes, **options}
        self._subject = model, optimizer
        self.tracer = (Tracer if self._run else Untraced)(self._run or "", model, optimizer, **options)
        optimizer.register_step_post_hook(self._after_step)  # after the tracer's own hook
        return self.tracer

    def finish(self) -> None:
        """The end of training: close the tracer, keep the state."""
        if self.tracer is None:
            raise UsageError("train(tracer_for) never called tracer_for(model, optimizer).")
        self.tracer.close()
        self.state = state_of(*self._subject)

    def _after_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.steps.append(fingerprint(self._subject[0]))
        if self._until is not None and len(self.steps) > self._until:
            self.state = state_of(*self._subject)
            raise _Enough


def main(task: dict[str, Any]) -> None:
    """Seed, train, and leave state, fingerprints and seconds in a file."""
    watched = Watched(task["run"], task["probes"], task["until"])
    train = _load(Path(task["script"]))
    torch.manual_seed(task["seed"])
    np.random.seed(task["seed"])
    random.seed(task["seed"])
    start = time.perf_counter()
    with suppress(_Enough):
        train(watched.tracer_for)
        watched.finish()
    probes = () if isinstance(watched.tracer, Untraced) or watched.tracer is None else watched.tracer.probes
    about = {
        "names": list(watched.state),
        "steps": watched.steps,
        "seconds": time.perf_counter() - start,
        "probes": probes,
    }
    arrays = {f"array{i}": a for i, a in enumerate(watched.state.values())}
    np.savez(task["out"], about=np.array(json.dumps(about)), **arrays)  # type: ignore[arg-type]


def _load(script: Path) -> Any:
    sys.path.insert(0, str(script.parent))
    spec = importlib.util.spec_from_file_location(script.stem, script)
    if spec is None or spec.loader is None:
        raise UsageError(f"{script}: not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[script.stem] = module
    spec.loader.exec_module(module)
    train = getattr(module, "train", None)
    if not callable(train):
        raise UsageError(f"{script}: defines no function train(tracer_for); found {type(train).__name__}.")
    return train


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except UsageError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
