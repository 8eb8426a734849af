"""What recording costs on a CUDA device: a ResNet-18 and a model of GPT-2's size.

``python -m tests.benchmarks.bench_cuda`` measures and prints; it needs the tracer's own packages and 8 GiB of disk.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.benchmarks.contenders import Traced, Training
from tests.benchmarks.measure import Session, at_most, load, machine, markdown_table
from tests.benchmarks.peers import open_peer
from tracer.workloads import Batch, Workload
from tracer.workloads.models import CharacterTransformer

ROUNDS, STEPS = 7, 4
ALONE, TRACED, PROBED, EXTRA, SAVED = (
    "no tracer",
    "lemmata",
    "lemmata, look-back probe",
    "one more forward and backward",
    "torch.save per step",
)


class Residual(nn.Module):
    """Two 3×3 convolutions with batch norm around a shortcut, as in He et al. (2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        same = stride == 1 and inputs == outputs
        short = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Identity() if same else short

    def forward(self, images: Tensor) -> Tensor:
        """Return images of ``outputs`` channels."""
        return (self.body(images) + self.shortcut(images)).relu()


def resnet18(width: int = 64, classes: int = 10) -> nn.Module:
    """For small images: no pooling after the first convolution. 11.2 million parameters at width 64."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    before = width
    for i in range(4):
        for stride in (1 if i == 0 else 2, 1):
            layers.append(Residual(before, width << i, stride))
            before = width << i
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))


def gpt2(device: torch.device | str) -> nn.Module:
    """Depth, width, context and alphabet of the smallest GPT-2."""
    with torch.device(device):
        return CharacterTransformer(50_257, 1_024, 768, 12, 12)


def problems(device: torch.device, quick: bool) -> list[Workload]:
    """ResNet-18 on images of 32 × 32, and GPT-2's 124 million parameters on random tokens; or both tiny."""
    alphabet, context = (64, 16) if quick else (50_257, 1_024)
    n, images, texts = (4, 4, 2) if quick else (512, 128, 4)

    def built(make: Callable[[], nn.Module]) -> Callable[[int], nn.Module]:
        def build(seed: int) -> nn.Module:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                return make().to(device)

        return build

    def of_images() -> Batch:
        return torch.rand(n, 3, 32, 32, device=device), torch.randint(0, 10, (n,), device=device)

    def of_texts() -> Batch:
        return (torch.randint(0, alphabet, (texts * 4, context + 1), device=device),)

    def label_loss(model: nn.Module, batch: Batch) -> Tensor:
        return cross_entropy(model(batch[0]), batch[1])

    def next_loss(model: nn.Module, batch: Batch) -> Tensor:
        return cross_entropy(model(batch[0][:, :-1]).flatten(0, 1), batch[0][:, 1:].flatten())

    rates = {"adamw": 1e-4}
    return [
        Workload("ResNet-18", "", built(lambda: resnet18(4 if quick else 64)), label_loss, of_images, images, 0, rates),
        Workload(
            "GPT-2 size",
            "",
            built(lambda: CharacterTransformer(alphabet, context, 16, 2, 2) if quick else gpt2("cpu")),
            next_loss,
            of_texts,
            texts,
            0,
            rates,
        ),
    ]


@dataclass
class Turns:
    """Seconds per step of one contender: until the device was done, and until all was written."""

    contender: Training
    files: Path | None
    trained: list[float]
    written: list[float]

    def turn(self, steps: int, wait: Callable[[], None]) -> None:
        """Train, then remove what was written, so that any disk is large enough."""
        wait()
        begin = time.perf_counter()
        for _, _, batch in islice(self.contender.batches, steps):
            self.contender.optimizer.zero_grad()
            self.contender.step(batch)
            self.contender.done += 1
        wait()
        self.trained.append((time.perf_counter() - begin) / steps)
        self.contender.settle()
        self.written.append((time.perf_counter() - begin) / steps)
        for path in [] if self.files is None else self.files.iterdir():
            if path.suffix == ".pt" or (path.suffix in (".h5", ".arrow") and path.name.startswith("chunk-")):
                path.unlink()


def run(session: Session, device: torch.device) -> None:
    """The table of both models."""
    steps = 2 if session.quick else STEPS
    for problem in problems(device, session.quick):
        _compare(session, problem, device, steps)
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _compare(session: Session, problem: Workload, device: torch.device, steps: int) -> None:
    folder = session.folder / problem.name.replace(" ", "-")
    size = sum(p.numel() for p in problem.build_model(0).parameters())
    save = open_peer(SAVED, folder / "saved", size)
    assert save is not None
    contenders = {
        ALONE: Turns(Training(problem, steps), None, [], []),
        EXTRA: Turns(Training(problem, steps, extra=True), None, [], []),
        TRACED: Turns(Traced(problem, steps, folder / "run", timed=True), folder / "run", [], []),
        PROBED: Turns(Traced(problem, steps, folder / "probed", probes=("look_back",)), folder / "probed", [], []),
        SAVED: Turns(Training(problem, steps, lambda t, x, g: save(t, x.cpu(), g.cpu())), folder / "saved", [], []),
    }

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for _ in session.track(range(session.rounds(ROUNDS) + 1), problem.name):
        for each in contenders.values():
            each.turn(steps, wait)
    for each in contenders.values():
        each.contender.close()

    setting = f"{problem.name}, {size:,} parameters, {device.type}"
    trained = {name: np.array(each.trained[1:]) for name, each in contenders.items()}
    written = {name: np.array(each.written[1:]) for name, each in contenders.items()}
    for name in (TRACED, PROBED, SAVED):
        target = at_most(1.05) if name == TRACED else None
        session.add("capture", setting, f"step time, {name} / {ALONE}", trained[name] / trained[ALONE], target)
        share = written[name] / trained[ALONE]
        session.add("capture", setting, f"step time until all is written, {name} / {ALONE}", share)
    session.add("capture", setting, f"step time, {PROBED} / {EXTRA}", trained[PROBED] / trained[EXTRA])
    middle = {name: float(np.median(values)) for name, values in trained.items()}
    price = (middle[PROBED] - middle[TRACED]) / (middle[EXTRA] - middle[ALONE])
    session.add("capture", setting, f"price of the probe (with − without) / {EXTRA}", [price], at_most(1.05))
    calls = np.array(contenders[TRACED].contender.calls[steps:])[:, 0]
    p50, p99 = np.quantile(calls, (0.5, 0.99))
    session.add("capture", setting, f"call in the training thread, p99 / p50, {TRACED}", [p99 / p50], at_most(3))
    session.add("capture", setting, f"call in the training thread / step time, {TRACED}", calls / middle[ALONE])


def main(folder: Path, device: torch.device, quick: bool = False) -> Session:
    """Measure, print machine and table, return what was found."""
    session = Session(folder, quick)
    about = machine(folder)
    if device.type == "cuda":
        about["device"] = torch.cuda.get_device_name(device)
    before = load()
    run(session, device)
    about["load"] = f"{before} when it began, {load()} when it ended"
    print("".join(f"- {name}: {text}\n" for name, text in about.items()))
    print(markdown_table(session.figures))
    return session


if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("no CUDA device here; the table needs one")
    with tempfile.TemporaryDirectory(prefix="lemmata-bench-") as place:
        main(Path(place), torch.device("cuda"))
