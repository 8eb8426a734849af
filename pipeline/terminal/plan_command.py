"""``lemmata plan``: what a recording will need, before it begins."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

MOST = 10**18  # of anything here: products stay numbers that a float holds


def register(app: typer.Typer, console: Console) -> None:
    """Add the command to ``app``; the table goes to ``console``."""

    @app.command(epilog="Example: lemmata plan --parameters 124e6 --steps 1000 --probe look_back --every 10")
    def plan(
        parameters: Annotated[float, typer.Option(help="Trained parameters, for instance 124e6.", min=1)],
        steps: Annotated[int, typer.Option(help="Optimizer updates of the whole training.", min=1)],
        probe: Annotated[
            list[str] | None, typer.Option(help="look_back, look_ahead or half_batches; can be repeated.")
        ] = None,
        every: Annotated[int, typer.Option(help="Record every n-th step with its neighbour.", min=1)] = 1,
        dtype: Annotated[str, typer.Option(help="Of the stored vectors: float32 or float64.")] = "float32",
        batch_bytes: Annotated[
            float,
            typer.Option(help="Bytes of one step's minibatch, if it is recorded; else left out.", min=0),
        ] = 0,
        where: Annotated[
            Path | None, typer.Option(help="Directory that will hold the run.", show_default="the runs of this home")
        ] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of a table.")] = False,
    ) -> None:
        """Forecast size and time of a recording on this disk, which is measured. Exit code 1 if it does not fit."""
        from tracer.errors import LemmataError, UsageError
        from tracer.forecast import forecast, size
        from tracer.opening import PROBES, known
        from tracer.plan import Every, EveryNth, count
        from tracer.store import home
        from tracer.store.layout import DTYPES, Layout

        known("--dtype", [dtype], DTYPES)
        streams = ("x", "g", *(s for name in known("--probe", probe or [], PROBES) for s in PROBES[name]))
        for option, given in (("--parameters", parameters), ("--steps", steps), ("--batch-bytes", batch_bytes)):
            if not given <= MOST:  # nor is nan
                raise UsageError(f"{option} {given}: expected a number up to {MOST:.0e}.")
        place = (where or home.runs_root()).absolute()
        nearest = next(there for there in (place, *place.parents) if there.exists())
        if not nearest.is_dir():
            raise UsageError(
                f"--where {place}: expected a directory, there or to be made; found the file {nearest}. Name another."
            )
        chosen = EveryNth(every) if every > 1 else Every()
        layout = Layout(streams, int(parameters), dtype)
        found = forecast(layout, count(chosen, steps), place, measure=True, batch_bytes=int(batch_bytes))
        if as_json:
            numbers = {"total_bytes": found.total_bytes, "seconds": found.seconds, "fits": found.fits}
            print(json.dumps({**vars(found), **numbers}, indent=1))
        else:
            batch = ", and its minibatch" if batch_bytes else "; minibatches, if recorded, come on top (--batch-bytes)"
            table = Table(show_header=False, box=None, pad_edge=False)
            table.add_row("a step", f"{size(found.step_bytes)} in {len(streams)} streams: {', '.join(streams)}{batch}")
            table.add_row("recorded steps", f"{found.steps:,} of {steps:,}")
            table.add_row("in all", size(found.total_bytes))
            table.add_row("this disk", f"{size(found.free_bytes)} free, {size(found.bytes_per_second or 0)} per second")
            table.add_row("writing takes", f"{found.seconds:,.1f} s, beside training where a core is free")
            console.print(table)
        if not found.fits:
            raise LemmataError(
                f"{place}: the run needs {size(found.total_bytes)} ({found.steps:,} steps of "
                f"{size(found.step_bytes)}) and this disk has {size(found.free_bytes)} left. Record fewer steps "
                "(--every, --steps) or fewer probes, or name a directory on another disk (--where)."
            )
