"""The one rule of staleness: what an asset of a run would be computed from, against what its files say they were.

Every file that an asset writes carries a *stamp*: the version of its code and the versions of its inputs, which are
what their own files say. An asset is current where code and inputs are the same now. The files alone decide, so the
rule holds for tables that were copied here, and without Dagster. The version that follows from a stamp is the one
Dagster would give, so both call the same things stale; only a file that was deleted is unknown to Dagster.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from analysis.remote import local
from analysis.tables import SOURCE, TableStore
from pipeline.archives import is_archived
from pipeline.replay_content import version
from pipeline.unchanged import kept
from tracer.errors import FormatError
from tracer.store import Trace, home

TRACE, REPLAYS = "trace", "replays"  # what stands there by itself: no file of theirs is written by an asset
FILES = {  # what is not named here is a metric
    "geometry": ("geometry", "path", "steps"),
    "proofs": ("proofs", "proof_findings"),
    "verdicts": ("verdicts",),
}
PAGES = {"report": "report.html"}
HEAD, TAIL = "<!-- lemmata.source ", " -->"
STAMP_BYTES = 1 << 14  # at the end of a page, where its stamp is


@dataclass(frozen=True)
class Node:
    """An asset of a run: its name, the version of its code, and the assets it reads."""

    name: str
    code: str
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stamp:
    """What something was computed from: the version of the code and of each input."""

    code: str
    inputs: Mapping[str, str]

    @property
    def version(self) -> str:
        """Hash of both, as Dagster makes it: equal versions were computed from equal content by equal code."""
        return hashed("".join((self.code, *(hashed(self.inputs[name]) for name in sorted(self.inputs)))))

    @property
    def text(self) -> str:
        """As it stands in a file."""
        return json.dumps({"code": self.code, "inputs": dict(sorted(self.inputs.items()))})

    @classmethod
    def of(cls, text: str | None) -> "Stamp | None":
        """The stamp that a file holds; None where it holds none."""
        body: dict[str, Any] = json.loads(text or "{}")
        return cls(body["code"], body["inputs"]) if {"code", "inputs"} <= body.keys() else None


def hashed(text: str) -> str:
    """SHA-256 of ``text``."""
    return hashlib.sha256(text.encode()).hexdigest()


def tables_of(name: str) -> tuple[str, ...]:
    """Tables without which the asset ``name`` is not computed."""
    return () if name in PAGES else FILES.get(name, (f"metrics/{name}", f"verdicts/{name}"))


def stamp_of(store: TableStore, name: str) -> Stamp | None:
    """What the files of an asset say they were computed from; None where one is missing, unsound, or of another stamp.

    A computation that was killed between two files therefore counts for nothing.
    """
    if name in (TRACE, REPLAYS):
        return None
    if name in PAGES:
        return _of_page(store.directory / PAGES[name])
    try:
        texts = {_source(store.path(table)) for table in tables_of(name)}
        if name == "geometry":
            texts.add(_facts_source(store.directory / "facts.json"))
    except (OSError, pl.exceptions.PolarsError):
        return None
    return Stamp.of(texts.pop()) if len(texts) == 1 else None


def version_of(store: TableStore, name: str) -> str | None:
    """Version of an asset as it is now: of the trace its digest, of anything else what its files say.

    A run that lies elsewhere has the digest that its tables were made from. None where there is nothing.
    """
    if name == TRACE:
        path = home.runs_root() / store.run_id
        try:
            return _digest(path) if path.is_dir() else store.facts().digest
        except FormatError:
            return None
    if name == REPLAYS:
        return _replayed(store, version_of(store, TRACE))
    stamp = stamp_of(store, name)
    return stamp.version if stamp else None


@kept
def _source(path: Path) -> str | None:
    return pl.read_parquet_metadata(local(path)).get(SOURCE)


@kept
def _facts_source(path: Path) -> str | None:
    return TableStore(path.parent.parent, path.parent.name).facts_source()


@kept
def _digest(path: Path) -> str:
    return Trace(path).digest


def _replayed(store: TableStore, digest: str | None) -> str | None:
    """Version of what was replayed of the run with this content."""
    try:
        return version(store, digest)
    except FormatError:
        return None


def stamp_for(store: TableStore, node: Node) -> Stamp:
    """What the asset would be computed from now; an input that is not there has an empty version."""
    return Stamp(node.code, {name: version_of(store, name) or "" for name in node.inputs})


def current(store: TableStore, name: str, code: str, seen: dict[str, str]) -> Stamp | None:
    """The stamp of an asset whose files were computed by this code from what its inputs are now; else None.

    ``seen`` keeps versions of inputs from one question to the next.
    """
    stamp = stamp_of(store, name)
    if stamp is None or stamp.code != code:
        return None
    for of in stamp.inputs.keys() - seen.keys():
        seen[of] = version_of(store, of) or ""
    return stamp if all(seen[of] == version for of, version in stamp.inputs.items()) else None


def stale(store: TableStore, nodes: Iterable[Node], reported: Mapping[str, str] | None = None) -> dict[str, str]:
    """Assets to compute again, in order, and why each.

    Args:
        store: tables of the run.
        nodes: the assets, inputs before what reads them.
        reported: versions that a Dagster instance has of this run's assets; where it has another than the files the
            asset is computed again, so that its page is of what lies there. None looks at the files alone.
    """
    found: dict[str, str] = {}
    versions: dict[str, str | None] = {}
    nodes = list(nodes)
    recorded = (home.runs_root() / store.run_id).is_dir()
    if not recorded and _needs_vectors(store, nodes):
        recorded = is_archived(store.run_id)  # it is restored; an archive of which no vector is needed stays one
    for node in nodes:
        if node.name == TRACE:
            versions[TRACE] = version_of(store, TRACE)
            reason = "not verified since it changed" if versions[TRACE] is None else ""
        elif node.name == REPLAYS:
            versions[REPLAYS] = _replayed(store, versions.get(TRACE))
            reason = "changed: geometry" if "geometry" in found else ""
        elif not recorded and TRACE in node.inputs:  # nothing to compute it from: what is there stands
            versions[node.name] = version_of(store, node.name)
            continue
        else:
            stamp = stamp_of(store, node.name)
            inputs = {name: versions.get(name) or "" for name in node.inputs}
            versions[node.name] = Stamp(node.code, inputs).version
            reason = _why(stamp, node, inputs)
        if not reason and reported is not None and (recorded or node.name != TRACE):
            said = "not verified since it changed" if node.name == TRACE else "not in the instance"
            reason = "" if reported.get(node.name) == versions[node.name] else said
        if reason and (recorded or node.name != TRACE):
            found[node.name] = reason
    return found


def _needs_vectors(store: TableStore, nodes: Iterable[Node]) -> bool:
    """Whether what is computed from vectors is missing, or was computed by other code."""
    stamps = [(node, stamp_of(store, node.name)) for node in nodes if TRACE in node.inputs]
    return any(stamp is None or stamp.code != node.code for node, stamp in stamps)


def _why(stamp: Stamp | None, node: Node, inputs: Mapping[str, str]) -> str:
    if stamp is None:
        return "not computed"
    if stamp.code != node.code:
        return "other code"
    changed = sorted(name for name in inputs.keys() | stamp.inputs.keys() if inputs.get(name) != stamp.inputs.get(name))
    return f"changed: {', '.join(changed)}" if changed else ""


class StampedStore(TableStore):
    """The tables of a run, for an asset that writes some: each gets the stamp of what was there when it began.

    Raises:
        FormatError: at a write, an input was replaced while the asset was computed.
    """

    def __init__(self, root: Path, run_id: str, node: Node) -> None:
        super().__init__(root, run_id)
        self._node = node
        self.stamp = stamp_for(TableStore(root, run_id), node)

    def write(self, name: str, frame: pl.DataFrame | pl.LazyFrame, metadata: dict[str, str] | None = None) -> Path:
        """Write a table with the stamp."""
        self._check()
        return super().write(name, frame, {**(metadata or {}), SOURCE: self.stamp.text})

    def write_page(self, name: str, text: str) -> Path:
        """Write an HTML page with the stamp as its last line."""
        self._check()
        return super().write_text(name, f"{text}\n{HEAD}{self.stamp.text}{TAIL}\n")

    def _check(self) -> None:
        if stamp_for(TableStore(self.directory.parent, self.run_id), self._node) != self.stamp:
            if is_recording(self.run_id):
                raise FormatError(
                    f"{self.run_id}: it is still being recorded; it grew while {self._node.name} was computed. Nothing "
                    "was written; compute it when it has ended (lemmata ls says so)."
                )
            raise FormatError(
                f"{self.directory}: what {self._node.name} is computed from was replaced meanwhile. Nothing was "
                f"written; run `lemmata rerun --stale {self.run_id}`."
            )


def is_recording(run_id: str) -> bool:
    """Whether somebody still records this run of the home; false of one whose vectors are elsewhere or damaged."""
    try:
        return Trace(home.runs_root() / run_id).status == "recording"
    except FormatError:
        return False


def _of_page(path: Path) -> Stamp | None:
    try:
        with local(path).open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - STAMP_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return None
    return Stamp.of(text.rpartition(HEAD)[2].rpartition(TAIL)[0]) if HEAD in text else None
