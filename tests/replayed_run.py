"""The whole way of a replayed run: recorded, its minibatches asked again, reduced, and what metrics read of it."""

from dataclasses import replace
from pathlib import Path

import polars as pl

from analysis.geometry import geometry
from analysis.replay import with_replay
from analysis.replayed import Replayed
from analysis.tables import MODEL, Tables
from tracer.replay.replay import Asked, Report, replay
from tracer.store import Trace


def replayed(path: Path, asked: Asked, allow: tuple[str, ...] = ("tests.replay_problems",)) -> tuple[Tables, Replayed]:
    """Tables with what the replay found at reference points, and the rest that it found."""
    into = path.parent / f"{path.name}-tables"
    report: Report = replay(path, asked, allow=allow, into=into)
    assert report.agreement.bitwise
    trace = Trace(path)
    tables = geometry(trace, references=asked.references)
    if (into / "replay.parquet").exists():
        found = pl.scan_parquet(into / "replay.parquet")
        tables = replace(tables, geometry=with_replay(tables.geometry, found, MODEL))
    return tables, Replayed(into, trace.digest)
