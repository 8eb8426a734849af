"""Parts of a run's page that are kept beside its tables, each with what it was made from.

A new metric changes one part of the page; drawing and writing the others again would take most of the time.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from analysis.pages.report_section import Section
from analysis.pages.svg import Drawing
from analysis.soundness.checks import CheckResult
from analysis.tables import TableStore


def write_drawing(store: TableStore, name: str, drawing: Drawing) -> None:
    """Keep a metric's figure for the report: drawing takes longer than everything else."""
    store.write_text(f"figures/{name}.json", json.dumps(drawing))


def read_drawings(store: TableStore, names: Iterable[str]) -> dict[str, Drawing]:
    """Figures that were kept, by metric."""
    paths = {name: store.directory / "figures" / f"{name}.json" for name in names}
    read = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.is_file()}
    return {name: (svg, glyphs) for name, (svg, glyphs) in read.items()}


def write_plates(store: TableStore, of: str, plates: Mapping[str, Drawing]) -> None:
    """Keep the paper's figures of a run, which a new metric does not change; ``of`` says what they were drawn from."""
    store.write_text("figures/_plates.json", json.dumps({"of": of, "plates": plates}))


def read_plates(store: TableStore, of: str) -> dict[str, Drawing] | None:
    """The paper's figures that were drawn from ``of``; None where that has changed."""
    kept = _read(store, "_plates")
    return {name: (svg, glyphs) for name, (svg, glyphs) in kept["plates"].items()} if kept.get("of") == of else None


def write_sections(store: TableStore, of: Mapping[str, str], sections: Mapping[str, Section]) -> None:
    """Keep the metrics' parts of the page; ``of`` says of each what it was made from."""
    glyphs = {name: drawn for _, shared in sections.values() for name, drawn in shared.items()}
    parts = {name: {"of": of[name], "html": html, "glyphs": [*shared]} for name, (html, shared) in sections.items()}
    store.write_text("figures/_sections.json", json.dumps({"sections": parts, "glyphs": glyphs}))


def read_sections(store: TableStore, of: Mapping[str, str]) -> dict[str, Section]:
    """The metrics' parts of the page that were made from what ``of`` says of each."""
    kept = _read(store, "_sections")
    return {
        name: (part["html"], {letter: kept["glyphs"][letter] for letter in part["glyphs"]})
        for name, part in kept.get("sections", {}).items()
        if of.get(name) == part["of"]
    }


def write_checks(store: TableStore, of: str, checks: Iterable[CheckResult]) -> None:
    """Keep what the checks of a trace found."""
    store.write_text("figures/_checks.json", json.dumps({"of": of, "checks": [asdict(check) for check in checks]}))


def read_checks(store: TableStore, of: str) -> list[CheckResult] | None:
    """What the checks found in ``of``; None where that has changed."""
    kept = _read(store, "_checks")
    return [CheckResult(**check) for check in kept["checks"]] if kept.get("of") == of else None


def _read(store: TableStore, name: str) -> dict[str, Any]:
    path = store.directory / "figures" / f"{name}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
