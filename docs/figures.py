"""Draws docs/figures and the page that shows them: ``python docs/figures.py``, with the extras demo and replay.

Three small trainings on digits in the home that ``$LEMMATA_HOME`` names: SGD with momentum, every probe and replay;
AdamW; and SGD whose steps are multiplied by draws of Exp(1). What is there is not done again.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

from analysis.geometry import geometry
from analysis.pages.catalogue import main as write_page
from analysis.tables import TableStore
from tracer import Tracer
from tracer.replay.replay import Asked, replay
from tracer.store import Trace, home
from tracer.workloads import train

SOME = Asked(
    references=("last", "tail_mean", "initial", "random"), gradients=True, profile=4, block_gaps=2, jensen=3,
    full_batch=3, critical=3, sharpness=12, float64=2,
)  # fmt: skip
CURVATURE = Asked(full_batch=20, critical=20, sharpness=20)


class RandomlyScaled(torch.optim.SGD):
    """Every update is multiplied by ``scale``."""

    scale = 1.0

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """x ← x − scale · lr · g."""
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad, alpha=self.scale * group["lr"])


def scaled(path: Path, steps: int = 600) -> None:
    """Softmax regression on digits, randomly scaled."""
    inputs, labels = (torch.tensor(part) for part in load_digits(return_X_y=True))
    inputs = inputs.float() / 16
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    optimizer = RandomlyScaled(model.parameters(), lr=0.1)
    with Tracer(path, model, optimizer, probes=["look_back"], changed_updates="record") as tracer:
        for step in range(steps):
            rows = torch.randint(len(labels), (64,))
            optimizer.scale = float(torch.empty(()).exponential_())
            optimizer.zero_grad()
            loss = tracer.loss(
                lambda rows=rows: cross_entropy(model(inputs[rows]), labels[rows]),
                batch=step,
                epoch=step // 28,
                random_scale=optimizer.scale,
            )
            loss.backward()
            optimizer.step()


def tables(path: Path, asked: Asked | None) -> None:
    """The run's tables in files, and what was replayed beside them."""
    store = TableStore(home.tables_root(), path.name)
    if not (store.directory / "facts.json").is_file():
        found = geometry(Trace(path))
        for name in ("geometry", "path", "steps"):
            store.write(name, getattr(found, name))
        store.write_facts(found.facts)
    if asked is not None:
        replay(path, asked, into=store.directory)


def main() -> None:
    """Record, replay, draw."""
    home.runs_root().mkdir(parents=True, exist_ok=True)
    paths = [home.runs_root() / f"figures-{name}" for name in ("sgdm", "adamw", "scaled")]
    every = ("look_back", "look_ahead", "half_batches")
    if not paths[0].is_dir():
        train("mlp", paths[0], optimizer="sgdm", steps=400, probes=every, record_batches=True, rows=True)
    if not paths[1].is_dir():
        train("mlp", paths[1], optimizer="adamw", steps=400, record_batches=True, rows=True)
    if not paths[2].is_dir():
        scaled(paths[2])
    for path, asked in zip(paths, (SOME, CURVATURE, None), strict=True):
        tables(path, asked)
    write_page(["--figures", *map(str, paths)])


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main()
