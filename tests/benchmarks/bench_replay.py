"""What replaying a step costs beside the one forward and backward pass that it is made of."""

from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from tests.benchmarks.measure import Session, at_least, timed
from tracer.errors import UsageError
from tracer.replay.answering import Opened, Processes, answers
from tracer.replay.at_reference import AtReference
from tracer.replay.engine import Engine, machine
from tracer.replay.points import references
from tracer.replay.products import block_names
from tracer.replay.source import Source
from tracer.replay.workload import load
from tracer.store import Trace
from tracer.store.trace import _sound
from tracer.workloads import Workload, train, workload

PLAIN, LOSS_ONLY = "forward and backward", "forward"
ROUNDS = 12
STEPS = {"logistic": 1024, "mlp": 512, "cnn": 64, "gpt": 32}  # of the run that is replayed in each round


def run(session: Session) -> None:
    """Networks of several sizes; the recorded run is read from warm files."""
    for name in ("mlp",) if session.quick else STEPS:
        problem = workload(name)
        try:
            problem.examples()
        except UsageError as missing:
            session.note(f"Replay was not measured on `{name}`: {missing}")
            continue
        _compare(session, problem)


def _compare(session: Session, problem: Workload) -> None:
    steps = 4 if session.quick else STEPS[problem.name]
    path = train(problem.name, session.folder / f"replayed-{problem.name}", steps=steps, record_batches=True, probes=())
    device = torch.device("cpu")
    question = AtReference(references(Source(Trace(path)), ["last"])[0], True, 1, block_names(Trace(path).manifest))
    with machine(1, device), Processes(2, partial(_opened, path, question)) as both:
        found = session.take_turns(
            f"replay, {problem.name}",
            {
                PLAIN: timed(_Plain(problem, steps, gradient=True)),
                LOSS_ONLY: timed(_Plain(problem, steps, gradient=False)),
                "gradients": timed(_Replayed(path, question, device)),
                "losses": timed(_Replayed(path, replace(question, gradients=False), device)),
                "two processes": timed(lambda: list(both(question, question.rows(Source(Trace(path)))))),
            },
            session.rounds(ROUNDS),
        )
    size = sum(p.numel() for p in problem.build_model(0).parameters())
    setting = f"{problem.name}, {size:,} parameters"
    throughput = found[PLAIN] / found["gradients"]
    target = at_least(0.8) if size > 1000 else None  # of 31 parameters only the fixed cost is left
    session.add("replay", setting, f"throughput with gradients and products / {PLAIN}", throughput, target)
    both_cores = f"throughput with gradients and products, two processes that are there / {PLAIN} in one"
    session.add("replay", setting, both_cores, found[PLAIN] / found["two processes"], target)
    session.add("replay", setting, f"throughput of losses alone / {LOSS_ONLY}", found[LOSS_ONLY] / found["losses"])


class _Plain:
    """The same number of minibatches, in memory, at one point, in a bare loop."""

    def __init__(self, problem: Workload, steps: int, gradient: bool) -> None:
        self._problem, self._gradient = problem, gradient
        self._model = problem.build_model(0)
        self._batches = [batch for _, _, batch in islice(problem.batches(0), steps)]

    def __call__(self) -> None:
        for batch in self._batches:
            with torch.set_grad_enabled(self._gradient):
                loss = self._problem.loss(self._model, batch)
            if self._gradient:
                self._model.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
            loss.item()


class _Replayed:
    """Minibatch, point and gradient read and verified, the loss asked at a reference point, products in a table."""

    def __init__(self, path: Path, question: AtReference, device: torch.device) -> None:
        self._path, self._question = path, question
        manifest = Trace(path).manifest
        self._engine = Engine(load(manifest.workload, None, ()), manifest, device)

    def __call__(self) -> None:
        """The whole run once, from files that nobody has verified yet."""
        _sound.clear()
        source = Source(Trace(self._path))
        for _ in answers(self._question, self._engine, source, self._question.rows(source)):
            pass


def _opened(path: Path, question: AtReference) -> Opened:
    """What a process answers with; it verifies the files once."""
    trace, device = Trace(path), torch.device("cpu")
    engine = Engine(load(trace.manifest.workload, None, ()), trace.manifest, device)
    return Opened(engine, Source(trace), {question.table: question}, device, 1)
