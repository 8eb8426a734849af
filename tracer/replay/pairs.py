"""What becomes of answers at reference points: one file beside the geometry."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tracer.errors import UsageError
from tracer.store.files import write_aside
from tracer.store.lock import Lock
from tracer.store.replays import Index, Results

PAIRS = "replay.parquet"  # all references in one table, for the geometry
DIGEST = b"lemmata.digest"  # of the trace, in the metadata of that table


def write_pairs(results: Results, directory: Path, digest: str, index: Index) -> None:
    """One table of all pairs with references, where the geometry looks for it; gone if there are none.

    Args:
        directory: of the run's tables.
        digest: of the trace.
    """
    path = directory / PAIRS
    chosen = [entry for name, entry in index.tables.items() if name.startswith("reference:") and entry["complete"]]
    tables = [results.read(entry["fingerprint"]) for entry in chosen]
    if not any(table.num_rows for table in tables):
        path.unlink(missing_ok=True)
        return
    table = pa.concat_tables([table for table in tables if table.num_rows])
    order = pc.sort_indices(table, sort_keys=[("pairing", "ascending"), ("step", "ascending")])
    table = table.take(order).replace_schema_metadata({DIGEST: digest.encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_aside(path, sink.getvalue())


def take_lock(directory: Path) -> Lock:
    """The right to write results there.

    Raises:
        UsageError: another process has it.
    """
    try:
        return Lock.take(directory)
    except UsageError:
        raise UsageError(f"{directory}: another process is replaying this run. Wait until it has ended.") from None
