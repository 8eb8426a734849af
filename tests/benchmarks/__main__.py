"""Run the benchmarks, print their table, and write the page: ``python -m tests.benchmarks [NAME...]``."""

import argparse
import importlib
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown
from rich.progress import Progress

from tests.benchmarks import (
    bench_capture,
    bench_metrics,
    bench_reading,
    bench_replay,
    bench_sealing,
    bench_tiny_steps,
)
from tests.benchmarks.measure import Session, json_lines, load, machine
from tests.benchmarks.page import page

BENCHMARKS = {
    "capture": bench_capture.run,
    "sealing": bench_sealing.run,
    "reading": bench_reading.run,
    "tiny": bench_tiny_steps.run,
    "replay": bench_replay.run,
    "metrics": bench_metrics.run,
}
ARCHIVE = "tests.benchmarks.bench_archive"  # prints a table of its own
NAMES = (*BENCHMARKS, "archive")


def main(arguments: Sequence[str] | None = None) -> Session:
    """Run what was asked for; return what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(NAMES)}; all if none is given")
    parser.add_argument("--quick", action="store_true", help="only show that they run; the numbers mean nothing")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the page, and JSON lines beside it")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.names if name not in NAMES]
    if unknown:
        parser.error(f"no benchmark is called {unknown[0]!r}; there are {', '.join(NAMES)}")
    names = given.names or NAMES

    console = Console(stderr=True)
    before = load()
    place = bench_sealing.MEMORY if given.quick and bench_sealing.MEMORY.is_dir() else None
    with (
        tempfile.TemporaryDirectory(prefix="lemmata-bench-", dir=place) as folder,
        Progress(console=console) as progress,
    ):
        session = Session(Path(folder), given.quick, progress)
        about = machine(session.folder)
        for name in names:
            if name in BENCHMARKS:
                BENCHMARKS[name](session)
            else:
                _archive(session)
    about["load"] = f"{before} when it began, {load()} when it ended (runnable processes over 1, 5, 15 minutes)"
    text = page(session, about)
    console.print(Markdown(text)) if sys.stdout.isatty() else print(text)
    if given.write:
        given.write.write_text(text, encoding="utf-8")
        given.write.with_suffix(".jsonl").write_text(json_lines(session.figures, about), encoding="utf-8")
    return session


def _archive(session: Session) -> None:
    if importlib.util.find_spec(ARCHIVE) is None:
        session.note("There is no benchmark of the archive here.")
    elif session.quick:
        importlib.import_module(ARCHIVE)
    else:
        done = subprocess.run([sys.executable, "-m", ARCHIVE], capture_output=True, text=True, check=True)
        session.listings.append(("Archive", done.stdout.rstrip()))


if __name__ == "__main__":
    main()
