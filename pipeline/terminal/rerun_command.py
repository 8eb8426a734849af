"""``lemmata rerun``: compute what is stale, of all runs or some."""

import sys
from typing import Annotated

import typer
from rich.console import Console


def register(app: typer.Typer, errors: Console) -> None:
    """Add the command to ``app``; progress goes to ``errors``."""

    @app.command(epilog="Example: lemmata rerun --stale --metric convexity_gap --jobs 4")
    def rerun(
        runs: Annotated[
            list[str] | None, typer.Argument(metavar="RUN", help="Names of runs; all of this home unless given.")
        ] = None,
        stale: Annotated[
            bool, typer.Option("--stale", help="Only what would come out differently, by content.")
        ] = False,
        metric: Annotated[
            list[str] | None, typer.Option(help="Only this metric, and what gathers it. Can be repeated.")
        ] = None,
        jobs: Annotated[
            int | None, typer.Option(help="Computing processes.", min=1, show_default="one per core")
        ] = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is stale and why; compute nothing.")] = False,
    ) -> None:
        """Compute again what is stale: new and grown runs, changed formulas, deleted tables; the UI shows it all.

        Each asset of a run says in its own file what it was computed from: the recording, the code, the formula. With
        --stale what would be computed from the same is left alone. Interrupted or killed, the same command goes on
        where it stopped. Exit code 1 if anything failed; the other runs are computed all the same.
        """
        from pipeline.terminal.rerunning import rerun_with_progress, say_stale
        from tracer.errors import UsageError

        if not stale and not runs:
            raise UsageError("lemmata rerun: give --stale, or name the runs of which everything is computed again.")
        if dry_run:
            print(say_stale(runs or None, metric, not stale))
            return
        if not rerun_with_progress(errors, runs or None, metric, jobs, not stale):
            sys.exit(1)
