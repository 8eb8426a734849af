"""Tables of one run on disk: Parquet files that are whole or absent, and the facts a metric may need."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import polars as pl

from analysis.columns import MODEL as MODEL
from analysis.optimizers import optimizer_flags
from analysis.remote import Aside, is_local, local
from analysis.replay import with_replay
from analysis.replayed import Replayed
from tracer.errors import FormatError
from tracer.store.home import check_run_id, scratch_root
from tracer.store.manifest import Manifest

PAIRINGS = ("previous", "next", "reference", "unpaired")
REPLAYED = "lemmata.digest"  # in a replay's Parquet metadata: digest of the trace it was made of
GROUP_ROWS = 1 << 17  # of a Parquet file: what a reader takes at once
SOURCE = "lemmata.source"  # in a table's Parquet metadata: what it was computed from
ACROSS = "_comparison"  # directory of tables about all runs
REFERENCE = "reference:"  # "reference:last" is a pairing of the kind "reference"


def pairing_kind(pairing: str) -> str:
    """One of :data:`PAIRINGS`: ``"reference:last"`` is of the kind ``"reference"``."""
    return pairing.partition(":")[0]


def pairing_type(references: tuple[str, ...]) -> pl.Enum:
    """Type of the column ``pairing``: the kinds that are one pairing, then ``reference:NAME`` for each reference."""
    return pl.Enum([*(p for p in PAIRINGS if p != "reference"), *(REFERENCE + name for name in references)])


def block_names(manifest: Manifest) -> tuple[str, ...]:
    """Names of the parameter tensors; one that is itself called ``model`` gets a suffix, for that name is taken."""
    return tuple(f"{b.name} (parameter)" if b.name == MODEL else b.name for b in manifest.blocks)


@dataclass(frozen=True)
class Facts:
    """What analysis must know of a run besides its numbers.

    ``digest`` identifies the trace's content, ``dtype`` is that of the recorded vectors, ``loss_dtype`` that of the
    loss as training computed it, ``blocks`` the names of the parameter tensors, ``references`` those of the reference
    points the geometry has pairs with.
    """

    run_id: str
    digest: str
    parameters: int
    dtype: str
    loss_dtype: str | None
    optimizer_class: str
    has_look_back: bool
    blocks: tuple[str, ...]
    references: tuple[str, ...] = ()
    optimizer_flags: tuple[str, ...] = ()  # of nesterov, maximize, amsgrad and the like those that are set
    changed_updates: bool = True  # whether points may change besides the optimizer's updates
    formula_why: str = ""  # why the optimizer's formula is not known; empty where it is
    has_batches: bool | None = None  # whether minibatches were recorded, so that the run can be replayed

    @classmethod
    def of(cls, manifest: Manifest, digest: str) -> Self:
        """Facts of a recorded run."""
        return cls(
            run_id=manifest.run_id,
            digest=digest,
            parameters=manifest.parameters,
            dtype=manifest.dtype,
            loss_dtype=manifest.loss_dtype,
            optimizer_class=str(manifest.optimizer.get("class", "")),
            has_look_back="h" in manifest.streams,
            blocks=block_names(manifest),
            optimizer_flags=optimizer_flags(manifest),
            # a trace of an earlier version promises nothing
            changed_updates=manifest.optimizer.get("changed_updates") != "error",
            has_batches=bool(manifest.batches),
        )


@dataclass(frozen=True)
class Tables:
    """The geometry of a run and what stands beside it; docs/architecture.md lists the columns.

    ``replayed`` is what was replayed of this very trace; None where nothing was.
    """

    geometry: pl.LazyFrame
    path: pl.LazyFrame
    steps: pl.LazyFrame
    facts: Facts
    replayed: Replayed | None = None


class TableStore:
    """Parquet tables of one run in a directory of its own.

    Args:
        root: directory of all runs' tables, perhaps on an object store (:func:`tracer.store.home.tables_root`).
        run_id: of the run; checked, because it becomes a directory.
    """

    def __init__(self, root: str | Path, run_id: str) -> None:
        self.run_id = check_run_id(run_id)
        self.directory = _directory(root) / self.run_id

    @classmethod
    def across(cls, root: str | Path) -> Self:
        """Tables about all runs together, in a directory whose name no run can have."""
        made = cls(root, "all")
        made.run_id, made.directory = "", _directory(root) / ACROSS
        return made

    def path(self, name: str) -> Path:
        """File of the table ``name``, for instance ``"geometry"`` or ``"metrics/convexity_gap"``."""
        return self.directory / f"{name}.parquet"

    def exists(self, name: str) -> bool:
        """Whether the table has been computed."""
        return self.path(name).is_file()

    def write(self, name: str, frame: pl.DataFrame | pl.LazyFrame, metadata: dict[str, str] | None = None) -> Path:
        """Write a table; readers see the old one or the new one, never a part. A lazy one need not fit into memory.

        ``metadata`` goes into the file, as texts by name.
        """
        target = self.path(name)
        with Aside(target) as aside:
            # rows per group are fixed: equal tables are equal bytes, whoever writes them with however many threads
            how: dict[str, Any] = {"compression": "zstd", "compression_level": 1, "statistics": True}
            how["row_group_size"] = GROUP_ROWS
            if isinstance(frame, pl.LazyFrame):
                frame.sink_parquet(aside, maintain_order=True, metadata=metadata, **how)
            else:
                frame.write_parquet(aside, metadata=metadata, **how)
        return target

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file, for instance ``"report.html"``, at once."""
        target = self.directory / name
        with Aside(target) as aside:
            aside.write_text(text, encoding="utf-8")
        return target

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A directory of this machine's file system for the time of the block."""
        folder = self.directory if is_local(self.directory) else scratch_root()
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".parts-", dir=folder) as name:
            yield Path(name)

    def scan(self, name: str) -> pl.LazyFrame:
        """Read a table lazily.

        Raises:
            FormatError: it has not been computed.
        """
        path = self.path(name)
        if not path.is_file():
            raise FormatError(
                f"{path}: this table has not been computed. Run `lemmata materialize {self.run_id}` first."
            )
        # no globbing and no hive columns: a run id may look like either
        return pl.scan_parquet(local(path), glob=False, hive_partitioning=False)

    def write_facts(self, facts: Facts, source: str | None = None) -> Path:
        """Write the run's facts beside its tables; ``source`` says what those were computed from."""
        body = asdict(facts) | ({} if source is None else {SOURCE: source})
        return self.write_text("facts.json", json.dumps(body, indent=1))

    def facts_source(self) -> str | None:
        """What the geometry's tables were computed from, as the facts say it; None where they do not."""
        try:
            text = (self.directory / "facts.json").read_text(encoding="utf-8")
            return dict(json.loads(text)).get(SOURCE)
        except (OSError, ValueError, TypeError):
            return None

    def facts(self) -> Facts:
        """The run's facts.

        Raises:
            FormatError: the geometry has not been computed, or the file is not sound.
        """
        path = self.directory / "facts.json"
        try:
            body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            body.pop(SOURCE, None)
            names = {key: tuple(body.get(key, ())) for key in ("blocks", "references", "optimizer_flags")}
            return Facts(**{**body, **names})
        except FileNotFoundError:
            raise FormatError(
                f"{path}: this run has no geometry yet. Run `lemmata materialize {self.run_id}` first."
            ) from None
        except (ValueError, TypeError, KeyError) as error:
            raise FormatError(f"{path}: not readable ({error}). Materialize `geometry` of this run again.") from None

    def tables(self) -> Tables:
        """Everything a metric reads; a replay of this very trace fills what the recorded vectors leave open.

        A replay of the run as it was before it went on is left out: its reference points have moved since.

        Raises:
            FormatError: the geometry has not been computed, or only a part of it has been written.
        """
        geometry, facts = self.scan("geometry"), self.facts()
        self._check_whole()
        if self.exists("replay") and pl.read_parquet_metadata(local(self.path("replay"))).get(REPLAYED) == facts.digest:
            geometry = with_replay(geometry, self.scan("replay"), MODEL)
        return Tables(geometry, self.scan("path"), self.scan("steps"), facts, self.replayed())

    def replayed(self) -> Replayed | None:
        """What was replayed of the run as it is; None where nothing was, or it has gone on since.

        Raises:
            FormatError: the geometry has not been computed, or the index of the replay is damaged.
        """
        found = Replayed(self.directory)
        return found if found.index is not None and found.index.digest == self.facts().digest else None

    def _check_whole(self) -> None:
        """Refuse tables of two computations beside each other: the second was killed between them, or goes on."""
        names = ("geometry", "path", "steps")
        found = {pl.read_parquet_metadata(local(self.path(name))).get(SOURCE) for name in names if self.exists(name)}
        if (source := self.facts_source()) is not None:
            found.add(source)
        if len(found) > 1:
            raise FormatError(
                f"{self.directory}: geometry, path, steps and facts are not of one computation; another goes on or was "
                f"killed. Run `lemmata rerun --stale {self.run_id}`."
            )


def _directory(root: str | Path) -> Path:
    return Path(root) if isinstance(root, str) else root  # perhaps no Path, but with its methods
