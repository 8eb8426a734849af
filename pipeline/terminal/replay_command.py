"""``lemmata replay``: ask stored minibatches at stored points again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from tracer.replay.replay import Report


def register(app: typer.Typer, errors: Console) -> None:
    """Add the command to ``app``; progress and warnings go to ``errors``."""

    @app.command(epilog="Example: lemmata replay mlp-sgdm-0 --references last,tail_mean --gradients --profile 5")
    def replay(
        run: Annotated[str, typer.Argument(metavar="RUN", help="A run that was recorded with its minibatches.")],
        references: Annotated[
            str | None,
            typer.Option(
                metavar="NAME,…",
                help="last, tail_mean, ema, epoch_last, best_loss, initial, random, run:ID, point:FILE.npy",
            ),
        ] = None,
        gradients: Annotated[bool, typer.Option("--gradients", help="At references, the gradient too.")] = False,
        profile: Annotated[
            int, typer.Option(metavar="NODES", help="The loss along each step; Gauss nodes, at most 1000.")
        ] = 0,
        every: Annotated[int, typer.Option(metavar="N", help="References and profile at every N-th step.")] = 1,
        block_gaps: Annotated[str, typer.Option(metavar="every=N", help="Each tensor moved alone.")] = "0",
        along_gradient: Annotated[
            str, typer.Option(metavar="every=N", help="Loss and gradient at steps along the gradient.")
        ] = "0",
        jensen: Annotated[int, typer.Option(metavar="STEPS", help="The loss at mean points of windows.")] = 0,
        full_batch: Annotated[
            str, typer.Option(metavar="every=N", help="Loss and gradient of the whole data set.")
        ] = "0",
        critical: Annotated[str, typer.Option(metavar="every=N", help="Critical sharpness.")] = "0",
        sharpness: Annotated[
            str, typer.Option(metavar="every=N", help="Largest Hessian eigenvalue; needs lemmata\\[replay].")
        ] = "0",
        float64: Annotated[
            str, typer.Option(metavar="every=N", help="Losses and slopes along steps in double precision.")
        ] = "0",
        workload: Annotated[
            str | None, typer.Option(metavar="MODULE:NAME", help="Model and loss, instead of those the run names.")
        ] = None,
        allow: Annotated[
            list[str] | None, typer.Option(metavar="MODULE", help="May be imported. Can be repeated.")
        ] = None,
        changed_source: Annotated[
            bool, typer.Option("--changed-source", help="Go on though the workload's source has changed.")
        ] = False,
        accept_disagreement: Annotated[
            bool, typer.Option("--accept-disagreement", help="Go on though recorded losses do not come back.")
        ] = False,
        device: Annotated[str, typer.Option(help="cpu, cuda, or one such as cuda:0.")] = "cpu",
        jobs: Annotated[int, typer.Option(metavar="N", help="Processes; more are quicker for small models.")] = 1,
    ) -> None:
        """Evaluate recorded minibatches again: at reference points, along steps, at mean points; and sharpness.

        First recorded losses are evaluated again and compared. Results lie beside the run's tables, and fill what the
        metrics of reference points need. Interrupted, the same command goes on where it stopped.
        """
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from tracer.replay.replay import Asked
        from tracer.replay.replay import replay as ask

        asked = Asked(
            references=tuple(name for name in (references or "").split(",") if name),
            gradients=gradients,
            every=every,
            profile=profile,
            block_gaps=number(block_gaps, "--block-gaps"),
            along_gradient=number(along_gradient, "--along-gradient"),
            jensen=jensen,
            full_batch=number(full_batch, "--full-batch"),
            critical=number(critical, "--critical"),
            sharpness=number(sharpness, "--sharpness"),
            float64=number(float64, "--float64"),
        )
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
            tasks = {}

            def show(table: str, done: int, total: int) -> None:
                if table not in tasks:
                    tasks[table] = bar.add_task(table, total=total)
                bar.update(tasks[table], completed=done)

            found = ask(
                Path(run) if "/" in run else run, asked, workload=workload, allow=allow or (),
                changed_source=changed_source, accept_disagreement=accept_disagreement, device=device, jobs=jobs,
                progress=show,
            )  # fmt: skip
        if found.warning:
            errors.print(f"Warning: {found.warning}", style="bold", highlight=False)
        print(say(found))
        tell(found.directory)


def say(report: "Report") -> str:
    """What was found, for a reader."""
    noise = report.agreement
    same = "bit for bit" if noise.bitwise else f"σ_f = {noise.sigma:.3g}"
    lines = [f"{noise.steps} recorded losses replayed: {same}"]
    lines += [f"{name}: {rows} rows" for name, rows in report.tables.items() if name != "repeat"]
    return "\n".join([*lines, str(report.directory)])


def tell(directory: Path) -> None:
    """Let Dagster know what was replayed of a run that it has computed: what reads it is stale from there."""
    from importlib.util import find_spec

    from tracer.store.home import tables_root

    computed = (directory / "facts.json").is_file() and directory.parent == tables_root()
    if not computed or find_spec("dagster") is None:
        return
    from pipeline.materialize import materialize

    (outcome,) = materialize([directory.name], ["replays"])
    for failure in outcome.failures:
        print(f"{failure.asset}: {failure.message}")
    print(f"Metrics that read it are stale; `lemmata materialize {directory.name}` computes them.")


def number(text: str, option: str) -> int:
    """``"every=50"`` or ``"50"`` as a number."""
    from tracer.errors import UsageError

    digits = text.removeprefix("every=")
    if not digits.isascii() or not digits.isdigit():
        raise UsageError(f"{option} {text}: expected every=N, for instance every=50.")
    return int(digits)
