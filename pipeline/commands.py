"""The command ``lemmata``: record, look, verify, compute, show.

Only typer, rich and the standard library are imported here: a training node has nothing of the pipeline installed.
"""

import json
import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pipeline.terminal import (
    archive_commands,
    certify_command,
    doctor_command,
    new_metric_command,
    plan_command,
    replay_command,
    rerun_command,
)
from pipeline.terminal.extra import extra
from pipeline.terminal.program import program

if TYPE_CHECKING:
    from pipeline.materialize import Outcome

app = typer.Typer(
    name="lemmata",
    help="Which lemmas of optimisation theory hold on your training run? Record it once, ask for ever.",
    epilog="Start with: lemmata demo. Runs live in $LEMMATA_HOME, or in ./lemmata-home.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
PIPED = 200  # columns where nobody looks: names are never cut in a file or a pipe
console = Console(width=None if sys.stdout.isatty() else PIPED)
errors = Console(stderr=True, width=None if sys.stderr.isatty() else PIPED)

Run = Annotated[str, typer.Argument(metavar="RUN", help="Name of a recorded run, or the path of its directory.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of a table for a reader.")]
OPTIMIZERS = "sgd, sgdm (momentum 0.9) or adamw"


def main() -> None:
    """Run the command; what went wrong is one text on stderr and an exit code (2: the call, 1: anything else)."""
    from tracer.errors import LemmataError, UsageError

    try:
        app(prog_name="lemmata")
    except UsageError as error:
        _stop(str(error), 2)
    except LemmataError as error:
        _stop(str(error), 1)
    except OSError as error:  # a full disk, a file that may not be read: the system's own words are enough
        _stop(str(error), 1)
    except Exception as error:
        if "sqlalchemy" not in sys.modules:  # nothing was asked of Dagster's database
            raise
        from pipeline.instance import database_fault

        if (fault := database_fault(error)) is None:
            raise
        _stop(fault, 1)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"lemmata {version('lemmata')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


@app.command(epilog="Example: lemmata demo && lemmata ui")
def demo(
    steps: Annotated[int | None, typer.Option(help="Optimizer updates of each run; short for a first look.")] = None,
) -> None:
    """Train four small models, record them, test every lemma on them and show what held.

    Two problems (logistic regression and a small convolutional network) times two optimizers, on data that come with
    the installed packages. Takes a minute or two on a laptop. Running it again replaces the four demo runs.
    """
    with extra("demo", "demo"):
        from pipeline.terminal.demo import run_demo

        outcomes = run_demo(console, steps)
    _finish(outcomes)


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


@app.command(epilog="Example: lemmata record logistic --optimizer adamw --run my-first-run")
def record(
    workload: Annotated[
        str, typer.Argument(help="A built-in problem: logistic, mlp, cnn, … (a wrong name lists all).")
    ],
    run: Annotated[
        str | None, typer.Option(help="Name of the new run.", show_default="WORKLOAD-OPTIMIZER-SEED")
    ] = None,
    optimizer: Annotated[str, typer.Option(help=f"One of {OPTIMIZERS}.")] = "sgdm",
    steps: Annotated[
        int | None, typer.Option(help="Optimizer updates.", show_default="the workload's own", min=1)
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the first weights and of the minibatches.", min=0, max=2**32 - 1)
    ] = 0,
    look_back: Annotated[
        bool,
        typer.Option(
            help="Also evaluate each minibatch at the previous point: most verdicts need it, it costs a pass."
        ),
    ] = True,
    batches: Annotated[
        bool, typer.Option("--batches", help="Keep each step's minibatch too, for `lemmata replay`.")
    ] = False,
    rows: Annotated[
        bool, typer.Option("--rows", help="The same, as rows of the data set: a few bytes per example.")
    ] = False,
    look_ahead: Annotated[
        bool, typer.Option(help="Also evaluate it at the next point: in-sample verdicts need it, it costs a pass.")
    ] = False,
    half_batches: Annotated[
        bool, typer.Option(help="Also evaluate its two halves: noise is measured from them, it costs a pass.")
    ] = False,
    lr: Annotated[
        float | None,
        typer.Option(help="Learning rate.", show_default="the workload's own", min=0, callback=_finite),
    ] = None,
) -> None:
    """Train a built-in problem and record every step.

    To record your own training, put `with tracer.Tracer(...)` around your loop; the README shows the three lines.
    """
    from pipeline.terminal.recording import record_workload
    from tracer.store import home

    asked = {"look_back": look_back, "look_ahead": look_ahead, "half_batches": half_batches}
    probes = [name for name, wanted in asked.items() if wanted]
    name = run or f"{workload}-{optimizer}-{seed}"
    path = record_workload(errors, workload, name, optimizer, steps, seed, probes, lr, batches, rows)
    print(path)
    if path.parent.resolve() == home.runs_root().resolve():
        says = f"Next: {program()} materialize {path.name}"
    else:
        link = f"ln -s {shlex.quote(str(path.resolve()))} {shlex.quote(f'{home.runs_root()}/')}"
        says = f"It lies outside this home. To compute it: {link} && {program()} materialize {path.name}"
    errors.print(says, style="dim", highlight=False, soft_wrap=True)


@app.command("ls", epilog="Example: lemmata ls --json | jq '.[].run_id'")
def list_runs(as_json: AsJson = False) -> None:
    """List the recorded runs: steps, size, optimizer, and whether recording ended well."""
    from pipeline.terminal.show import describe_all, runs_table
    from tracer.store import home

    found = describe_all()
    if as_json:
        print(json.dumps(found, indent=1))
    elif found:
        console.print(runs_table(found))
    else:
        print(f"No runs in {home.runs_root()}. Record one: lemmata record logistic")


@app.command(epilog="Example: lemmata show logistic-sgdm-0")
def show(
    run: Run,
    metric: Annotated[str | None, typer.Argument(help="One metric: its reasons, and every parameter tensor.")] = None,
    as_json: AsJson = False,
    every: Annotated[
        bool, typer.Option("--all", help="Also what is not applicable, each reference point, and every reason.")
    ] = False,
) -> None:
    """Show one run: where it ended, what was recorded, and the verdicts if they were computed."""
    from pipeline.terminal.show import describe, findings_of, print_run, verdicts_of
    from tracer.store import home

    path = _existing(run)
    if metric is not None:
        with extra("show", "pipeline"):
            from pipeline.terminal.show_metric import describe_metric, print_metric

            found = describe_metric(home.tables_root(), path.name, metric)
        print(json.dumps(found, indent=1)) if as_json else print_metric(console, found)
        return
    facts = describe(path)
    with extra("show", "pipeline"):
        verdicts = verdicts_of(home.tables_root(), path.name)
        findings = findings_of(home.tables_root(), path.name)
    if as_json:
        print(json.dumps({**facts, "verdicts": verdicts, "proofs": findings}, indent=1))
    else:
        print_run(console, facts, verdicts, findings, every)


@app.command(epilog="Example: lemmata verify logistic-sgdm-0")
def verify(run: Run) -> None:
    """Read every byte of a run, compare it with its hashes, and name each damaged file. Exit code 1 if there is one."""
    from rich.progress import Progress

    from tracer.store import Trace
    from tracer.store import verify as damages

    path = _existing(run)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task(f"verifying {path.name}", total=None)
        found = damages(path, lambda done, total: progress.update(task, completed=done, total=total))
    if found:
        do = "Restore what is named above from a copy, where it says nothing else."
        _stop("\n".join([*map(str, found), f"{path.name}: damaged. {do}"]), 1)
    trace = Trace(path)
    torn = "; the step being written at the end is not counted" if trace.torn else ""
    print(f"{path.name}: sound, {trace.step_count} steps, {trace.status}{torn}")


@app.command(epilog="Example: lemmata materialize --all --metric convexity_gap")
def materialize(
    runs: Annotated[list[str] | None, typer.Argument(metavar="RUN...", help="Names of recorded runs.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All recorded runs.")] = False,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this metric, from tables computed before: no recorded vector is read. Can be repeated."
        ),
    ] = None,
    references: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="Reference points beside those of every run: run:ID, point:FILE.npy. Kept for these runs; '' takes "
            "them back.",
        ),
    ] = None,
) -> None:
    """Compute geometry, metrics, verdicts and report of recorded runs, through Dagster: the UI shows the same.

    Exit code 1 if anything failed; the other runs are computed all the same.
    """
    from pipeline.archives import known
    from tracer.errors import UsageError
    from tracer.store import home

    if bool(runs) == every:
        raise UsageError("lemmata materialize: name one or more runs, or give --all; `lemmata ls` lists them.")
    names = known() if every else [_at_home(run) for run in runs or []]
    if not names:
        raise UsageError(f"No runs in {home.runs_root()}. Record one: lemmata record logistic")
    with extra("materialize", "pipeline"):
        from pipeline.chosen import choose
        from pipeline.materialize import materialize_with_progress

        if references is not None and metric:
            raise UsageError("lemmata materialize: --references needs the recorded vectors, and --metric reads none.")
        for name in names if references is not None else ():
            choose(name, [each for each in (references or "").split(",") if each])
        outcomes = materialize_with_progress(errors, names, metric)
    _finish(outcomes)


@app.command(
    epilog="Example: lemmata report logistic-sgdm-0 --open; several: lemmata report slow fast --output two.html"
)
def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="A recorded run, or several to compare.")],
    output: Annotated[
        Path | None,
        typer.Option(help="Where the page of several runs goes.", show_default="comparison.html in the tables"),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser as well.")] = False,
) -> None:
    """Print the path of a run's HTML report: one file with every verdict and plot, to keep or to send.

    With several runs: write one page that sets every claim against every run.
    """
    from tracer.errors import LemmataError, UsageError
    from tracer.store import home

    names = [home.resolve_run(run).name for run in runs]
    for run, name in zip(runs, names, strict=True):
        if not (home.tables_root() / name / "report.html").is_file():
            _existing(run)
            path = home.tables_root() / name / "report.html"
            raise LemmataError(f"{path}: no report yet. Compute it: lemmata materialize {name}")
    if len(names) > 1 and output is not None and output.is_dir():
        raise UsageError(
            f"lemmata report: --output {output}: a directory; expected the name of a file. "
            f"Try: --output {output / 'comparison.html'}"
        )
    if len(names) == 1:
        if output is not None:
            raise UsageError("lemmata report: --output is for several runs; the report of one run is there already.")
        path = home.tables_root() / names[0] / "report.html"
    else:
        with extra("report", "pipeline"):
            from pipeline.comparison import write_comparison

            path = write_comparison(names, output or home.tables_root() / "comparison.html")
    print(path)
    if open_:
        from analysis.remote import local

        typer.launch(local(path).resolve().as_uri())


@app.command(epilog="Example: lemmata ui --port 3001")
def ui(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.", min=1, max=65535)] = 3000,
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser when it is up.")] = False,
) -> None:
    """Start the Dagster UI on this machine: runs are partitions, metrics are assets, claims are checks.

    Only programs on this machine can reach it. Ctrl-C stops it with everything it started.
    """
    with extra("ui", "pipeline"):
        from pipeline.server import serve

        code = serve(port, when_up=typer.launch if open_ else None)
    raise typer.Exit(code)


plan_command.register(app, console)
certify_command.register(app, errors)
archive_commands.register(app)
new_metric_command.register(app)
doctor_command.register(app, console)
replay_command.register(app, errors)
rerun_command.register(app, errors)


def _existing(run: str) -> Path:
    from tracer.errors import UsageError
    from tracer.store import home

    path = home.resolve_run(run)
    if not path.is_dir():
        raise UsageError(f"{path}: no such run. `lemmata ls` lists the runs of this home; $LEMMATA_HOME names another.")
    return path


def _at_home(run: str) -> str:
    from pipeline.archives import archived
    from tracer.errors import UsageError
    from tracer.store import home

    if run in archived():
        return run
    path = _existing(run)
    if path.parent.resolve() != home.runs_root().resolve():
        raise UsageError(
            f"{path}: expected a run of this home. Link it there first: ln -s {path} {home.runs_root()}/, or set "
            "$LEMMATA_HOME to the directory that holds its 'runs' directory."
        )
    return path.name


def _finish(outcomes: "list[Outcome]") -> None:
    """Say what failed, where and why; exit code 1 if anything did."""
    for outcome in outcomes:
        for failure in outcome.failures:
            print(f"lemmata: {outcome.run_id}: {failure.asset} failed: {failure.message}", file=sys.stderr)
        if outcome.succeeded:
            errors.print(
                f"{outcome.run_id}: {len(outcome.computed)} assets in {outcome.seconds:.1f} s", highlight=False
            )
    failed = sum(not outcome.succeeded for outcome in outcomes)
    if failed:
        _stop(f"{failed} of {len(outcomes)} runs were not computed completely.", 1)
    if len(outcomes) == 1:
        run_id = outcomes[0].run_id
        errors.print(f"Next: {program()} show {run_id}, or report {run_id}, or ui", style="dim", highlight=False)


def _stop(message: str, code: int) -> None:
    print(f"lemmata: {message}", file=sys.stderr)
    raise SystemExit(code)
