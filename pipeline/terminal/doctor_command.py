"""The command ``lemmata doctor``; ``register(app, console)`` adds it to the command line."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}


def register(app: typer.Typer, console: Console) -> None:
    """Add the command to ``app``."""

    @app.command(epilog="Example: lemmata doctor --json | jq '.[] | select(.level != \"ok\")'")
    def doctor(
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of lines.")] = False,
    ) -> None:
        """Look for the usual mistakes: what is installed, where things are, runs, tables, metric files, Dagster.

        Changes nothing. Exit code 1 if there is an error; warnings alone give 0.
        """
        from pipeline.terminal.doctor import examine

        found = examine()
        if as_json:
            print(json.dumps([asdict(finding) for finding in found], indent=1))
        else:
            table = Table(box=None, show_header=False, pad_edge=False)
            table.add_column(no_wrap=True)
            table.add_column(no_wrap=True)
            table.add_column(overflow="fold")
            for finding in found:
                text = Text(finding.says)
                if finding.do:
                    text.append(f"\n→ {finding.do}", style="bold" if finding.level != "ok" else "dim")
                table.add_row(Text(finding.level.upper() if finding.level == "ok" else finding.level,
                                   COLOURS[finding.level]), finding.about, text)  # fmt: skip
            console.print(table)
        if any(finding.level == "error" for finding in found):
            raise typer.Exit(1)
