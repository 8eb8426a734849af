"""Reference points that somebody chose for one run, beside those that every run has.

They stand with the run's tables, and whoever computes its geometry takes them from there: the command, the UI, a rerun.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from analysis.tables import TableStore
from analysis.vectors.references import REFERENCES
from pipeline.archives import here
from tracer.errors import UsageError
from tracer.store import Trace, home
from tracer.store.points import find, label

FILE = "references.json"


def choose(run_id: str, names: Sequence[str]) -> list[str]:
    """Keep ``names`` (``run:ID``, ``point:FILE.npy``) for a recorded run; none of them takes earlier ones back.

    Returns them as they are kept, with absolute paths.

    Raises:
        UsageError: a name is not of these kinds, two of them would have the same pairing, or a point is not one of
            this model.
        FormatError: a file is damaged or missing.
    """
    kept = [_absolute(name) for name in dict.fromkeys(names)]
    if len({label(name) for name in kept}) < len(kept):
        raise UsageError(f"references {', '.join(kept)}: two of them have one name. Rename one of the files.")
    if kept:
        trace = Trace(here(run_id))
        for name in kept:
            find(trace, trace.records(), name)
    store = TableStore(home.tables_root(), run_id)
    store.write_text(FILE, json.dumps({"chosen": kept}, indent=1))
    return kept


def references(store: TableStore) -> tuple[str, ...]:
    """Reference points of a run: those of every run, and the chosen ones."""
    path = store.directory / FILE
    chosen = json.loads(path.read_text(encoding="utf-8"))["chosen"] if path.is_file() else []
    return (*REFERENCES, *chosen)


def _absolute(name: str) -> str:
    kind, _, which = name.partition(":")
    if kind not in ("run", "point") or not which:
        raise UsageError(
            f"reference {name!r:.80}: expected run:ID or point:FILE.npy. Every run has {', '.join(REFERENCES)} anyway."
        )
    return name if kind == "run" else f"point:{Path(which).absolute()}"
