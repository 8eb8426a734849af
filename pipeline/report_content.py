"""The report of a run, put together from what is kept and from what has changed since."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

import analysis.judging.battery
import analysis.pages.details
import analysis.pages.drawing
import analysis.pages.figures
import analysis.pages.gallery
import analysis.pages.grouped
import analysis.pages.measured
import analysis.pages.panel
import analysis.pages.plates
import analysis.pages.proof_plate
import analysis.pages.ratio_plate
import analysis.pages.replay_plates
import analysis.pages.report
import analysis.pages.report_section
import analysis.rounding
import analysis.soundness.checks
import analysis.soundness.energies
import analysis.soundness.identities
import analysis.soundness.oddities
import analysis.soundness.own_updates
import analysis.soundness.pair_identities
from analysis.metric import Metric
from analysis.pages.page import environment
from analysis.pages.report import PROOF_BOUNDS
from analysis.pages.report_section import Section, section
from analysis.pages.svg import Drawing
from analysis.proofs import proofs
from analysis.soundness.checks import CheckResult, trace_checks
from analysis.tables import TableStore
from pipeline import pages
from pipeline.kept import (
    read_checks,
    read_drawings,
    read_plates,
    read_sections,
    write_checks,
    write_plates,
    write_sections,
)
from pipeline.results import ProofResults, details, measurements, proof_results, read_config, verdicts_of
from pipeline.stale import REPLAYS, StampedStore, version_of

CODE = pages.source_version(
    analysis.pages.report,
    analysis.pages.report_section,
    analysis.judging.battery,
    analysis.pages.details,
    analysis.pages.grouped,
    analysis.pages.figures,
    analysis.pages.gallery,
    analysis.pages.plates,
    analysis.pages.ratio_plate,
    analysis.pages.measured,
    analysis.pages.replay_plates,
    analysis.pages.proof_plate,
)
PLATES_CODE = pages.source_version(
    analysis.pages.gallery,
    analysis.pages.plates,
    analysis.pages.ratio_plate,
    analysis.pages.measured,
    analysis.pages.replay_plates,
    analysis.pages.drawing,
    analysis.pages.panel,
)
CHECKS_CODE = pages.source_version(
    analysis.soundness.checks,
    analysis.soundness.energies,
    analysis.soundness.identities,
    analysis.soundness.oddities,
    analysis.soundness.own_updates,
    analysis.soundness.pair_identities,
    analysis.rounding,
)
PROOFS = proofs()
TEMPLATES = ("report_section.html.j2", "report_macros.html.j2")


def write(
    into: StampedStore, metrics: Mapping[str, Metric], broken: Mapping[str, str]
) -> tuple[Path, dict[str, Drawing]]:
    """Write the page of a run; its file, and the paper's figures that it shows.

    Args:
        into: tables of the run.
        metrics: those whose results count.
        broken: metric files that did not load, with their errors.
    """
    facts, proven = into.facts(), proof_results(into, PROOFS)
    verdicts = verdicts_of(into, metrics)
    drawn = _figures(into, {name: metrics[name] for name in verdicts}, proven)
    sections = _sections(into, metrics, verdicts)
    html = analysis.pages.report.report(
        facts,
        {name: (metrics[name], pl.DataFrame(), of) for name, of in verdicts.items()},
        checked(into),
        read_config(into),
        broken,
        proofs=proven,
        figures=drawn,
        sections=sections,
    )
    return into.write_page("report.html", html), drawn


def checked(into: TableStore) -> list[CheckResult]:
    """What the checks of the trace find, as the geometry's computation found it unless something was replayed since."""
    found = read_checks(into, _checked_of(into))
    if found is None:
        found = trace_checks(into.tables())
        write_checks(into, _checked_of(into), found)
    return found


def keep_checks(into: TableStore, found: list[CheckResult]) -> None:
    """Keep what the checks of the trace found, for the page."""
    write_checks(into, _checked_of(into), found)


def _checked_of(into: TableStore) -> str:
    return ";".join([CHECKS_CODE, *(str(version_of(into, name)) for name in ("geometry", REPLAYS))])


def _sections(
    into: TableStore, metrics: Mapping[str, Metric], verdicts: Mapping[str, pl.DataFrame]
) -> dict[str, Section]:
    """The part of each metric: kept where it would come out the same."""
    code = pages.version_of(CODE + "".join(_template(name) for name in TEMPLATES))
    of = {name: _section_of(into, metrics[name], code) for name in verdicts}
    kept = read_sections(into, of)
    missing = {name: metrics[name] for name in verdicts if name not in kept}
    found, drawn, beside = measurements(into, missing), read_drawings(into, missing), details(into, missing)
    made = {name: section(*each, drawn.get(name), beside[name]) for name, each in found.items()}
    parts = {name: kept.get(name) or made[name] for name in verdicts}
    if missing:
        write_sections(into, of, parts)
    return parts


def _template(name: str) -> str:
    loader = environment().loader
    return loader.get_source(environment(), name)[0] if loader else ""


def _section_of(into: TableStore, metric: Metric, code: str) -> str:
    words = (metric.title, metric.paper, *metric.caveats, str(metric.units), metric.formula)
    return pages.version_of(";".join([code, str(version_of(into, metric.name)), *words]))


def _figures(into: TableStore, metrics: Mapping[str, Metric], proven: ProofResults) -> dict[str, Drawing]:
    """The paper's figures: drawn where what they show has changed."""
    needed = sorted({name for names in analysis.pages.gallery.NEEDS.values() for name in names} & set(metrics))
    versions = [f"{name}={version_of(into, name)}" for name in ("geometry", REPLAYS, *needed)]
    of = pages.version_of(";".join([PLATES_CODE, *versions]))
    kept, bounds = read_plates(into, of), read_drawings(into, [PROOF_BOUNDS])
    if kept is not None:
        return kept | analysis.pages.report.plates(into.facts(), {}, proofs=proven, drawings=bounds)
    tables = into.tables()
    profile = None if tables.replayed is None else tables.replayed.profile().collect()
    found = measurements(into, {name: metrics[name] for name in needed})
    drawn = analysis.pages.report.plates(tables.facts, found, tables.steps.collect(), proven, bounds, profile)
    write_plates(into, of, {name: each for name, each in drawn.items() if name != PROOF_BOUNDS})
    return drawn
