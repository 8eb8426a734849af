"""What ``lemmata rerun`` says in the terminal."""

import sys
import time
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pipeline.archives import known as recorded_or_archived
from pipeline.bodies import Computed
from pipeline.compute import Graph
from pipeline.definitions import build
from pipeline.instance import opened
from pipeline.rerun import plan, rerun
from tracer.errors import UsageError
from tracer.store import home


def chosen(names: Sequence[str] | None) -> list[str]:
    """These runs, or all of this home: those recorded here, archived, or of which only the tables are here.

    Raises:
        UsageError: there is no such run, or none at all.
    """
    tables = home.tables_root()
    computed = {path.parent.name for path in tables.glob("*/facts.json")} if tables.is_dir() else set()
    known = sorted(computed.union(recorded_or_archived()))
    if unknown := sorted(set(names or ()) - set(known)):
        raise UsageError(f"{home.runs_root()}: no such run: {', '.join(unknown)}. `lemmata ls` lists the runs.")
    if not known:
        raise UsageError(f"No runs in {home.runs_root()}. Record one: lemmata record logistic")
    return list(dict.fromkeys(names)) if names else known


def say_stale(names: Sequence[str] | None, metrics: Sequence[str] | None, every: bool) -> str:
    """A line per run of which something is stale: how many assets, and why."""
    with opened() as instance:
        planned = plan(instance, chosen(names), Graph.of(build()), metrics, every)
    lines = []
    for run_id, reasons in planned.items():
        by_reason = Counter(reasons.values())
        said = (
            f"{why} ({', '.join(n for n in reasons if reasons[n] == why) if k < 4 else k})"
            for why, k in by_reason.items()
        )
        lines.append(f"{run_id}: {'; '.join(said)}")
    return "\n".join(lines) or "Nothing is stale."


def rerun_with_progress(
    console: Console, names: Sequence[str] | None, metrics: Sequence[str] | None, jobs: int | None, every: bool
) -> bool:
    """:func:`pipeline.rerun.rerun` with one bar; failures go to stderr. Whether all went well."""
    started = time.monotonic()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bars:
        task = bars.add_task("looking", total=None)

        def said(done: Computed) -> None:
            bars.update(task, advance=1, description=done.run_id)
            for failure in done.failures:
                console.print(f"lemmata: {done.run_id}: {failure.asset} failed: {failure.message}", highlight=False)

        outcomes = rerun(
            chosen(names), metrics, jobs, every, lambda count: bars.update(task, total=count, completed=0), said
        )
    if not outcomes:
        print("Nothing is stale.")
        return True
    failed = sum(not outcome.succeeded for outcome in outcomes)
    computed = sum(len(outcome.computed) for outcome in outcomes)
    seconds = time.monotonic() - started
    print(f"{computed} assets of {len(outcomes)} runs in {seconds:.1f} s")
    if failed:
        print(f"lemmata: {failed} of {len(outcomes)} runs were not computed completely.", file=sys.stderr)
    return not failed
