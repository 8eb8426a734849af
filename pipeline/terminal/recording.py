"""Recording built-in workloads from the command line, with a progress bar."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tracer.errors import UsageError
from tracer.store import home
from tracer.store.home import resolve_run


def record_workload(
    console: Console,
    workload: str,
    run: str,
    optimizer: str,
    steps: int | None,
    seed: int,
    probes: Sequence[str] = ("look_back",),
    lr: float | None = None,
    batches: bool = False,
    rows: bool = False,
) -> Path:
    """Train ``workload`` and record it as ``run``; the bar shows steps and loss. Returns the run's directory.

    Raises:
        UsageError: unknown workload or optimizer, or the run is there already.
    """
    path = resolve_run(run)
    if path.exists():
        raise UsageError(f"{path}: this run is there already and is never overwritten. Choose another name with --run.")
    from tracer.workloads import train  # imports torch: a second, after everything cheap was checked

    home.runs_root().mkdir(parents=True, exist_ok=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4g}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"recording {path.name}", total=None, loss=float("nan"))

        def step(done: int, total: int, loss: float) -> None:
            progress.update(task, completed=done, total=total, loss=loss)

        return train(
            workload,
            run,
            optimizer=optimizer,
            steps=steps,
            lr=lr,
            seed=seed,
            probes=probes,
            record_batches=batches or rows,
            rows=rows,
            progress=step,
        )
