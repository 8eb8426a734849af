"""The commands ``lemmata archive`` and ``lemmata restore``; ``register(app)`` adds them to the command line."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

Place = Annotated[str, typer.Argument(metavar="ARCHIVE", help="Path or URL (s3://…, needs fsspec) of an archive.")]


def register(app: typer.Typer) -> None:
    """Add both commands to ``app``."""
    app.command(epilog="Example: lemmata archive logistic-sgdm-0 --to s3://bucket/traces/logistic.lemmata")(archive)
    app.command(epilog="Example: lemmata restore logistic-sgdm-0.lemmata")(restore)


def archive(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name of a recorded run, or the path of its directory.")],
    to: Annotated[
        str | None,
        typer.Option(help="File, directory or URL for the archive.", show_default="RUN.lemmata in this directory"),
    ] = None,
    check: Annotated[bool, typer.Option(help="Read the archive back and compare every row with its hash.")] = True,
) -> None:
    """Write a run into one file: compressed without loss, hashed, about half the size. The run stays as it is."""
    from tracer.store import home
    from tracer.store.archive import archive as write
    from tracer.store.restore import check_archive

    path = home.resolve_run(run)
    with _progress(f"archiving {path.name}") as progress:
        written = write(path, Path.cwd() if to is None else to, progress)
    if check:
        with _progress(f"checking {path.name}") as progress:
            check_archive(written.place, progress)
    size = f"{written.bytes:,} bytes for {written.head.vector_bytes:,} bytes of vectors"
    print(f"{written.place}: {written.head.steps} steps, {written.head.status}, {size} ({written.ratio:.2f} : 1)")


def restore(
    archive: Place,
    into: Annotated[
        Path | None, typer.Option(help="Directory that gets the run.", show_default="the runs of this home")
    ] = None,
) -> None:
    """Make a run out of its archive, the same to the last bit. Refuses where a run of that name is."""
    from tracer.store.restore import restore as unpack

    with _progress(f"restoring {archive}") as progress:
        path = unpack(archive, into, progress)
    print(path)


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None]]:
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 200)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
