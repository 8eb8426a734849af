"""The command ``lemmata new-metric``; ``register(app)`` adds it to the command line."""

import os
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from pipeline.terminal.extra import extra
from pipeline.terminal.program import program


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("new-metric", epilog="Example: lemmata new-metric turning_angle --dir ~/my-metrics")(new_metric)


def new_metric(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Lower case letters, digits and underscores.")],
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir", help="Where the file goes, made if need be.", show_default="the first of $LEMMATA_METRICS"
        ),
    ] = None,
) -> None:
    """Write the file of a new metric and its test; both work at once, and you put your formula in.

    The test goes into the directory 'tests' beside it. Nothing is ever overwritten.
    """
    into = _directory(directory)
    metric, test = into / f"{name}.py", into / "tests" / f"test_{name}.py"
    with extra("new-metric", "pipeline"):
        _check(name, metric, test)
    words = {"name": name, "title": name.replace("_", " ").capitalize(), "place": str(test)}
    test.parent.mkdir(parents=True, exist_ok=True)
    for path, template in ((metric, "new_metric.py.j2"), (test, "new_metric_test.py.j2")):
        text = files("pipeline.terminal").joinpath(template).read_text(encoding="utf-8")
        for word, meaning in words.items():
            text = text.replace("{{ " + word + " }}", meaning)
        with path.open("x", encoding="utf-8") as out:
            out.write(text)
    print(metric)
    print(test)
    print("\n".join(_next(name, into, test)))


def _directory(given: Path | None) -> Path:
    from tracer.errors import UsageError

    if given is not None:
        return given.expanduser().absolute()
    listed = [part for part in os.environ.get("LEMMATA_METRICS", "").split(os.pathsep) if part]
    if not listed:
        raise UsageError(
            "lemmata new-metric: nowhere to put it. Give --dir DIRECTORY, or list one in $LEMMATA_METRICS first: "
            "export LEMMATA_METRICS=$PWD/my-metrics"
        )
    if not Path(listed[0]).is_absolute():
        raise UsageError(f"LEMMATA_METRICS lists {listed[0]!r}: expected an absolute path.")
    return Path(listed[0])


def _check(name: str, metric: Path, test: Path) -> None:
    """Refuse what could not be loaded, or would hide something."""
    import polars as pl

    from analysis.columns import COLUMNS, Units
    from analysis.metric import Metric
    from pipeline.definitions import TAKEN, installed, metric_nodes
    from tracer.errors import UsageError

    for path in (metric, test):
        if path.exists():
            raise UsageError(f"{path} is there already, and is not overwritten. Choose another name.")
    made = Metric(name=name, units=Units(), value=pl.col("d_d"))  # UsageError for a bad name
    _, refused = metric_nodes({name: made})
    if refused:
        raise UsageError(f"Metric name {name!r}: {'; '.join(refused.values()).removeprefix(f'{name}: ')}")
    if name in TAKEN or name in COLUMNS or name in installed()[0]:
        raise UsageError(f"Metric name {name!r}: an asset, a column or a metric of this name is there. Choose another.")


def _next(name: str, into: Path, test: Path) -> list[str]:
    page = Path(__file__).resolve().parents[2] / "docs" / "new-metric.md"
    listed = os.environ.get("LEMMATA_METRICS", "").split(os.pathsep)
    lines = ["", "Next:"]
    if str(into) not in listed:
        both = os.pathsep.join([*filter(None, listed), str(into)])
        lines.append(f"  export LEMMATA_METRICS={both}")
    lines += [
        f"  python -m pytest {test}",
        f"  {program()} materialize --all --metric {name}",
        f"How it is done: {page if page.is_file() else 'docs/new-metric.md in the sources of lemmata'}",
    ]
    return lines
