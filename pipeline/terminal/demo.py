"""The demo: four real runs, every lemma tested on them, in a minute or two."""

import shutil
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.pages.grouped import families
from analysis.tables import pairing_kind
from pipeline.materialize import Outcome, materialize_with_progress
from pipeline.terminal.program import program
from pipeline.terminal.recording import record_workload
from pipeline.terminal.show import COLOURS, letters, verdicts_of
from tracer.errors import UsageError
from tracer.store import home
from tracer.store.lock import being_written

PROBLEMS = ("logistic", "cnn")
OPTIMIZERS = ("sgdm", "adamw")


def run_demo(console: Console, steps: int | None = None) -> list[Outcome]:
    """Record the four demo runs anew, compute them, print what held. Returns what became of each."""
    names = [(f"demo-{problem}-{optimizer}", problem, optimizer) for problem in PROBLEMS for optimizer in OPTIMIZERS]
    for name, problem, optimizer in names:
        path = home.runs_root() / name
        if path.exists():
            if being_written(path):
                raise UsageError(f"{path}: another demo is recording this run. Wait until it has finished.")
            console.print(f"replacing the run {name} of an earlier demo", style="dim", highlight=False)
            shutil.rmtree(path)
        record_workload(console, problem, name, optimizer, steps, seed=0)
        console.print(f"recorded {name}", highlight=False)
    run_ids = [name for name, _, _ in names]
    outcomes = materialize_with_progress(console, run_ids, None)
    console.print(comparison(run_ids))
    for run_id in run_ids:
        report = home.tables_root() / run_id / "report.html"
        if report.is_file():
            console.print(f"report: {report}", highlight=False, soft_wrap=True)
    console.print(f"All of it in the browser: {program()} ui", highlight=False)
    return outcomes


def comparison(run_ids: Sequence[str]) -> Table:
    """Verdicts of several runs side by side, a line per claim that applies to one of them, by family."""
    table = Table("metric", "claim", "points", box=None, pad_edge=False)
    for run_id in run_ids:
        table.add_column(run_id.removeprefix("demo-"))
    of = letters()
    found = [families(of, verdicts_of(home.tables_root(), run_id) or []) for run_id in run_ids]
    for title in dict.fromkeys(family.title for of_run in found for family in of_run):
        cells = [
            {(group.metric, group.claim, pairing_kind(group.row["pairing"])): group for group in groups}
            for groups in ([g for family in of_run if family.title == title for g in family.groups] for of_run in found)
        ]
        table.add_row(Text(title, "bold"))
        for key in dict.fromkeys(key for of_run in cells for key in of_run):
            statuses = [of_run[key].status if key in of_run else "–" for of_run in cells]
            if set(statuses) - {"NOT APPLICABLE", "–"}:
                points = {"previous": "fresh", "next": "in-sample"}.get(key[2], "references")
                table.add_row(*key[:2], points, *(Text(status, COLOURS.get(status, "")) for status in statuses))
    return table
