"""A recorded run with its replay as tables of analysis, through every file on the way."""

from pathlib import Path

from analysis.geometry import geometry
from analysis.tables import Tables, TableStore
from tests.replay_problems import record
from tracer.replay.replay import Asked, replay
from tracer.store import Trace

EVERYTHING = Asked(
    references=("last", "tail_mean", "initial"), gradients=True, profile=5, block_gaps=1, along_gradient=1, jensen=5,
    full_batch=1, critical=1, sharpness=1, float64=1,
)  # fmt: skip


def replayed_run(
    folder: Path, problem: str, steps: int, lr: float, asked: Asked | None = EVERYTHING, **options: object
) -> Tables:
    """Record ``problem`` of :mod:`tests.replay_problems`, replay it, and read the tables back."""
    path = record(folder / "runs" / "run", problem, steps, lr, **options)
    store = written(path, folder / "tables")
    if asked is not None:
        replay(path, asked, allow=["tests.replay_problems"], into=store.directory)
    return store.tables()


def written(path: Path, root: Path) -> TableStore:
    """Tables of a recorded run in files."""
    tables, store = geometry(Trace(path)), TableStore(root, path.name)
    for name in ("geometry", "path", "steps"):
        store.write(name, getattr(tables, name).collect())
    store.write_facts(tables.facts)
    return store
