"""The edge of stability: full-batch gradient descent drives the sharpness to 2 / lr, and there it stays (or does not).

Six networks are trained on 1,797 digits and recorded; then each run is replayed for the largest eigenvalue of its
Hessian, which stands in the picture beside what the tracer saw at no such cost: how fast the gradient changed along
each step. Two to four minutes on a CPU: python examples/edge_of_stability.py PICTURE.png
"""

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

from analysis.geometry import geometry
from analysis.measure import measure
from analysis.registry import metrics
from analysis.replayed import Replayed
from tracer import Tracer
from tracer.replay.replay import Asked, replay
from tracer.store import Trace, home


@dataclass(frozen=True)
class Digits:
    """A network of two hidden layers; every step's minibatch is all the ``examples`` there are, so none is stored."""

    examples: int
    squares: bool

    @cached_property
    def data(self):
        inputs, labels = load_digits(return_X_y=True)
        images = torch.tensor(inputs / 16, dtype=torch.float32)
        return (images - images.mean(dim=0))[: self.examples], torch.tensor(labels)[: self.examples]

    def build(self):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10))

    def loss(self, model, batch):
        images, labels = self.data
        if self.squares:
            return (model(images) - one_hot(labels, 10)).square().sum(dim=1).mean() / 2
        return cross_entropy(model(images), labels)


squares, entropy = Digits(1797, squares=True), Digits(1797, squares=False)
few_squares, few_entropy = Digits(300, squares=True), Digits(300, squares=False)  # for a first look, in seconds


@dataclass(frozen=True)
class Training:
    """Heavy ball with momentum b, or gradient descent; on quadratics stable up to a sharpness of 2 (1 + b) / lr."""

    problem: str
    lr: float
    steps: int
    momentum: float = 0.0

    @property
    def name(self):
        return f"edge-{self.problem.replace('_', '-')}-{self.lr}-{self.momentum}"

    @property
    def limit(self):
        return 2 * (1 + self.momentum) / self.lr


TRAININGS = (
    Training("squares", 0.3, 2000),
    Training("squares", 0.4, 1500),
    Training("squares", 0.6, 1000),
    Training("squares", 0.4, 1000, momentum=0.5),
    Training("squares", 0.5, 500, momentum=0.9),
    Training("entropy", 1.0, 1000),
)


def record(training, path):
    """Train, and record every step with the look-back probe."""
    problem = globals()[training.problem]
    model = problem.build()
    optimizer = torch.optim.SGD(model.parameters(), lr=training.lr, momentum=training.momentum)
    workload = f"edge_of_stability:{training.problem}"
    with Tracer(path, model, optimizer, probes=["look_back"], record_batches=True, workload=workload) as tracer:
        for _ in range(training.steps):
            optimizer.zero_grad()
            tracer.loss(lambda: problem.loss(model, {}), tensors={}).backward()
            optimizer.step()


def measured(training, path, into, points=40):
    """Tables of sharpness (step, eigenvalue) and of the smoothness of each step (step, value, exponential_mean)."""
    asked = Asked(sharpness=training.steps // points, repeat=10)
    replay(path, asked, allow=["edge_of_stability"], into=into)
    smooth = measure(metrics()["smoothness"], geometry(Trace(path), references=())).table
    previous = smooth.filter(pl.col("pairing").cast(pl.String) == "previous")
    return Replayed(into).sharpness().collect(), previous.select("step", "value", "exponential_mean")


def draw(found):
    """A panel per training."""
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    for axes, (training, (sharpness, smooth)) in zip(figure.subplots(2, 3).flat, found.items(), strict=True):
        axes.axhline(training.limit, color="black", linestyle="--", linewidth=0.9, label="2 (1 + b) / lr")
        axes.plot(smooth["step"], smooth["exponential_mean"], color="#c8553d", label="exponential smoothness")
        axes.plot(sharpness["step"], sharpness["eigenvalue"], ".", color="#1f4e79", label="sharpness λ_max")
        loss = "squared error" if "squares" in training.problem else "cross-entropy"
        axes.set_title(f"{loss}, lr = {training.lr}, b = {training.momentum}", loc="left", fontsize=10)
        axes.set_xlabel("step")
        axes.set_ylim(0, 1.5 * training.limit)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    return figure


def main(picture):
    torch.set_num_threads(1)
    found = {}
    for training in TRAININGS:
        path = home.runs_root() / training.name
        if not path.exists():
            record(training, path)
        found[training] = sharpness, smooth = measured(training, path, home.tables_root() / training.name)
        tail = training.steps // 2
        late, ahead = (table.filter(pl.col("step") >= tail) for table in (sharpness, smooth))
        low, mean, high = (getattr(late["eigenvalue"], name)() for name in ("min", "mean", "max"))
        print(
            f"{training.name}: 2(1+b)/lr {training.limit:.2f}; second half: sharpness {mean:.2f} ({low:.2f} to "
            f"{high:.2f}), exponential smoothness {ahead['exponential_mean'].mean():.2f}"
        )
    draw(found).savefig(picture, dpi=100)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "edge-of-stability.png"))
