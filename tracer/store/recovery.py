"""What a killed process left open is sealed by the next one that records into the run."""

import os
from pathlib import Path

from tracer.store import batches
from tracer.store.chunk import open_chunk, read_records
from tracer.store.chunk_writer import record_file, shrink
from tracer.store.files import sync_directory, write_aside
from tracer.store.header import Header
from tracer.store.layout import BATCHES, OPEN, chunk_name, digest, record_schema, seal_record
from tracer.store.manifest import Manifest
from tracer.store.skeleton import build


def seal_what_was_open(directory: Path, manifest: Manifest, number: int) -> int:
    """Seal the open chunk ``number`` with its acknowledged steps, or remove it if it has none; returns how many.

    The caller holds the run's lock.

    Raises:
        FormatError: the chunk is damaged; it is left as it is.
    """
    vectors = directory / (chunk_name(number, "h5") + OPEN)
    messages = directory / (chunk_name(number, "arrow") + OPEN)
    chunk = open_chunk(vectors, manifest.layout, manifest.run_id, sealed=False)
    rows = len(chunk.steps)
    if rows:
        records = record_file(read_records(messages, chunk, record_schema(manifest.hyperparameters)))
        write_aside(directory / chunk_name(number, "arrow"), records)
        if manifest.batches:
            batches.seal_what_was_open(chunk)
        commits = chunk.commits.tobytes()
        seal = seal_record(rows, digest(commits), digest(records))
        source = os.open(vectors, os.O_RDONLY)
        try:
            header = Header.read(source)
            smaller = build(manifest.layout, rows, manifest.run_id, header.attempt)
            shrink(source, header, smaller, commits, seal, directory / chunk_name(number))
        finally:
            os.close(source)
        sync_directory(directory)
    vectors.unlink()
    messages.unlink(missing_ok=True)
    (directory / (chunk_name(number, BATCHES) + OPEN)).unlink(missing_ok=True)
    return rows
