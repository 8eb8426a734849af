"""What was replayed of a run, by content: what makes the metrics that read it stale."""

import analysis.replay
import analysis.replay_columns
import analysis.replayed
from analysis.replayed import Replayed
from analysis.tables import TableStore
from pipeline import pages

CODE = pages.source_version(analysis.replay, analysis.replay_columns, analysis.replayed)


def version(store: TableStore, digest: str | None) -> str:
    """The data version of a run's replays as they are now; "nothing" where metrics would read none of them.

    Args:
        store: tables of the run.
        digest: of the trace that metrics are computed from.

    Raises:
        FormatError: results are damaged.
    """
    found = Replayed(store.directory)
    return f"{found.content}-{CODE}" if found.index is not None and found.index.digest == digest else "nothing"
