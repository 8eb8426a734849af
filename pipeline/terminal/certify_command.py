"""``lemmata certify``: mounted by the command line; imports nothing heavy before it is called."""

import json
from typing import Annotated

import typer
from rich.console import Console


def register(app: typer.Typer, errors: Console) -> None:
    """Add the command to ``app``; what it is doing goes to ``errors``."""

    @app.command(epilog="Example: lemmata certify my_training.py --run my-certified-run")
    def certify(
        script: Annotated[str, typer.Argument(help="A Python file that defines train(tracer_for).")],
        run: Annotated[
            str | None, typer.Option(help="Name of the run that is recorded.", show_default="certified-SCRIPT")
        ] = None,
        seed: Annotated[int, typer.Option(help="Seed of torch, numpy and Python.", min=0, max=2**32 - 1)] = 0,
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
    ) -> None:
        """Train your script with and without the tracer and say whether training is the same, bit for bit.

        SCRIPT defines train(tracer_for): it builds model and optimizer, takes `tracer = tracer_for(model, optimizer)`
        instead of a Tracer, and trains. It is run in fresh processes with the same seeds: twice without the tracer, to
        see that it repeats itself, and once with it. The result is kept in the manifest of the recorded run. Exit code
        1 unless identical.
        """
        from pathlib import Path

        from tracer.certify import certify as compare

        name = run or f"certified-{Path(script).stem}"
        with errors.status("certifying") as status:
            found = compare(script, name, seed=seed, say=lambda text: status.update(f"training {text}"))
        print(json.dumps(found.as_json(), indent=1) if as_json else f"{Path(script).name}: {found}")
        if found.verdict != "identical":
            raise typer.Exit(1)
