"""Results of replays: Parquet files that are whole or absent, each named after its hash, and an index. No torch.

    replay/index.json                           what was asked, of which trace, and which files belong to it
    replay/3f0c…-000000000-9a1b….parquet        rows of one table; the last part of the name is the hash of the file

A table is written in parts as its rows are found. Its fingerprint stands for everything that its numbers depend on, and
begins the name of each part: what was found is not asked again, and parts of another question are never taken for it.
"""

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tracer.errors import FormatError
from tracer.store.files import ASIDE, write_aside
from tracer.store.layout import digest

FOLDER = "replay"  # beside the tables of a run
INDEX = "index.json"
VERSION = 1
_PART = re.compile(r"([0-9a-f]{16})-(\d{9})-([0-9a-f]{16})\.parquet")


@dataclass(frozen=True)
class Index:
    """What the results of a run are.

    Args:
        run_id, digest: of the trace that was asked.
        workload: path and source of the code that answered.
        machine: device and versions it ran with.
        noise: how far replayed losses were from the recorded ones; see :mod:`tracer.replay.agreement`.
        tables: name of a table to its ``fingerprint``, ``settings``, and whether it is ``complete``.
    """

    run_id: str
    digest: str
    workload: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    noise: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Results:
    """The results of one run.

    Args:
        directory: that of the run's tables; results lie in its sub-directory ``replay``.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory / FOLDER

    def index(self) -> Index | None:
        """What there is; None where nothing was replayed.

        Raises:
            FormatError: the index is damaged, or of another version.
        """
        path = self.directory / INDEX
        try:
            body = json.loads(path.read_bytes())
            if body.pop("version") != VERSION:
                raise ValueError("of another version")
            return Index(**body)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            raise FormatError(f"{path}: not readable ({error!s:.200}). Remove {self.directory} and replay.") from None

    def write_index(self, index: Index) -> None:
        """Replace it at once."""
        self.directory.mkdir(parents=True, exist_ok=True)
        write_aside(self.directory / INDEX, json.dumps({"version": VERSION, **vars(index)}, indent=1).encode())

    def seal(self, fingerprint: str, table: pa.Table) -> Path:
        """Write further rows of a table; they are there, whole and on the disk, when this returns."""
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        data = buffer.getvalue()
        path = self.directory / f"{fingerprint}-{len(self._parts(fingerprint)):09d}-{digest(data):016x}.parquet"
        write_aside(path, data)
        return path

    def read(self, fingerprint: str, schema: pa.Schema | None = None) -> pa.Table:
        """All rows of a table that are sealed, in the order in which they were found.

        Args:
            schema: what is expected; needed where no row may be there.

        Raises:
            FormatError: a part is damaged.
        """
        parts = []
        for path, hashed in self._parts(fingerprint):
            data = path.read_bytes()
            if f"{digest(data):016x}" != hashed:
                raise FormatError(f"{path}: the hash does not match the data. Remove this file and replay again.")
            table = pq.read_table(io.BytesIO(data))
            if schema is not None and not table.schema.equals(schema):
                raise FormatError(f"{path}: columns {table.schema.names}; expected {schema.names}. Remove this file.")
            parts.append(table)
        if not parts:
            return (schema or pa.schema([])).empty_table()
        return pa.concat_tables(parts)

    def content(self, index: Index) -> str:
        """16 digits that stand for all results of ``index`` and the trace they are of; no table is read."""
        parts = [[name, entry["complete"], [hashed for _, hashed in self._parts(entry["fingerprint"])]]
                 for name, entry in sorted(index.tables.items())]  # fmt: skip
        about = (index.digest, index.noise, parts)
        return f"{digest(json.dumps(about, sort_keys=True).encode()):016x}"

    def written(self, fingerprint: str) -> float | None:
        """When the last part of a table was written, in seconds since 1970; None where there is none."""
        return max((path.stat().st_mtime for path, _ in self._parts(fingerprint)), default=None)

    def sweep(self, index: Index) -> None:
        """Remove parts that the index does not know, and what a killed process left half written."""
        known = {entry["fingerprint"] for entry in index.tables.values()}
        for path in self.directory.iterdir():
            match = _PART.fullmatch(path.name)
            if path.name.endswith(ASIDE) or (match and match[1] not in known):
                path.unlink(missing_ok=True)

    def _parts(self, fingerprint: str) -> list[tuple[Path, str]]:
        names = sorted(path.name for path in self.directory.glob(f"{fingerprint}-*.parquet"))
        return [(self.directory / n, m[3]) for n in names if (m := _PART.fullmatch(n))]
