"""Train a built-in workload with the tracer switched on, the way anybody would with their own."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import nn

from tracer.errors import UsageError
from tracer.opening import not_negative, whole
from tracer.recorder import Tracer
from tracer.workloads.catalogue import workload
from tracer.workloads.named import data_of, path_of, tensors
from tracer.workloads.workload import Batch

MOST_SEED = 2**32 - 1  # numpy's, Python's and torch's
ONE_THREAD_BELOW = 100_000  # parameters; threads cost more than they give on small tensors

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "sgdm": partial(torch.optim.SGD, momentum=0.9),
    "adamw": torch.optim.AdamW,
}

Progress = Callable[[int, int, float], None]


def train(
    name: str,
    run: str | Path,
    *,
    optimizer: str = "sgdm",
    steps: int | None = None,
    lr: float | None = None,
    seed: int = 0,
    probes: Sequence[str] = ("look_back",),
    record_batches: bool = False,
    rows: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Train a built-in workload from ``seed``, 0 to 2³² − 1, and record it.

    Args:
        name: the workload, one of :func:`tracer.workloads.workloads`.
        run: id of the run, recorded under the home directory; or a path.
        optimizer: ``"sgd"``, ``"sgdm"`` (momentum 0.9) or ``"adamw"``.
        steps: optimizer updates; the workload's default where None.
        lr: learning rate, finite; the workload's default for the optimizer where None.
        probes: what is measured besides the step itself, as in :class:`tracer.Tracer`.
        record_batches: keep each step's minibatch too, for ``lemmata replay``.
        rows: keep them as rows of the data set, which replay reads again, instead of examples.
        progress: called after each step with steps done, steps in all and the step's loss.

    Returns:
        The directory of the recorded run.

    Raises:
        UsageError: unknown workload or optimizer, a number that is none of its kind, or a package with data is missing.
    """
    problem = workload(name)
    if optimizer not in OPTIMIZERS:
        raise UsageError(f"optimizer {optimizer!r} is not known here. Choose one of: {', '.join(OPTIMIZERS)}.")
    rate = problem.learning_rates[optimizer] if lr is None else not_negative("lr", lr, finite=True)
    total = problem.steps if steps is None else whole("steps", steps, 1)
    seed = whole("seed", seed, 0, MOST_SEED)
    problem.examples()  # where a package is missing, say so before a run is begun
    model = problem.build_model(seed)
    batches = islice(problem.batches(seed), total)
    data = data_of(name) if record_batches and rows else None
    config = {"workload": name, "optimizer": optimizer, "lr": rate, "steps": total, "seed": seed}
    config |= {"batch_size": problem.batch_size}
    in_halves = "half_batches" in probes

    with quiet_machine(model, seed):
        optim = OPTIMIZERS[optimizer](model.parameters(), lr=rate)
        named = path_of(name) if record_batches else None
        with Tracer(
            run, model, optim, probes=list(probes), config=config, record_batches=record_batches, data=data,
            workload=named,
        ) as tracer:  # fmt: skip
            for done, (epoch, batch_id, batch) in enumerate(batches, start=1):
                optim.zero_grad()
                closures = [partial(problem.loss, model, half) for half in halves(batch)] if in_halves else None
                loss = tracer.loss(
                    partial(problem.loss, model, batch),
                    epoch=epoch,
                    batch=batch_id,
                    tensors=tensors(batch) if record_batches and not rows else None,
                    rows=None if data is None else problem.rows(seed, batch_id),
                    halves=(closures[0], closures[1]) if closures else None,
                )
                loss.backward()  # type: ignore[no-untyped-call]
                optim.step()
                if progress is not None:
                    progress(done, total, loss.item())
    return tracer.path


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """The first and the second half of a minibatch's examples."""
    middle = len(batch[0]) // 2
    return tuple(part[:middle] for part in batch), tuple(part[middle:] for part in batch)


@contextmanager
def quiet_machine(model: nn.Module, seed: int) -> Iterator[None]:
    """Seed torch and use one thread for small models; afterwards both are as they were."""
    threads = torch.get_num_threads()
    small = sum(parameter.numel() for parameter in model.parameters()) < ONE_THREAD_BELOW
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            if small:
                torch.set_num_threads(1)
            yield
        finally:
            torch.set_num_threads(threads)
