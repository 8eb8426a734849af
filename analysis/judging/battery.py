"""Whether a claim about a reference point depends on which one was chosen: the same verdict at every good one.

A statement such as "slopes point towards the solution" is about a solution, and nobody has it. It is robust if every
stand-in that a reader could have chosen gives the same answer, and the points that are certainly no solution, where the
run began and a random point as far away, give another one.
"""

from typing import Any

import polars as pl

from analysis.tables import REFERENCE

EVERY_REFERENCE = f"{REFERENCE}*"
ROBUST, NOT_ROBUST, NOT_APPLICABLE = "robust", "not robust", "NOT APPLICABLE"
CONTROLS = ("initial", "random")
"""References that are certainly no solution; every other one, ``run:ID`` and ``point:NAME`` included, is a good one."""

_CLAIM = "run_id", "metric", "claim"
BATTERY_SCHEMA = pl.Schema(dict.fromkeys((*_CLAIM, "pairing", "status", "reason"), pl.String))


def battery(verdicts: pl.DataFrame) -> pl.DataFrame:
    """One row per claim that is judged at reference points, columns as in :data:`BATTERY_SCHEMA`.

    "robust": at least two good references, the same status HOLDS or FAILS at all of them where the claim applies, and
    another one at every control where it applies, of which there must be one. "NOT APPLICABLE" where it applies at no
    good reference. ``reason`` names the references.

    Args:
        verdicts: of one run, as :class:`analysis.measure.Measurement` has them, of one metric or several.
    """
    of_references = verdicts.filter(pl.col("pairing").cast(pl.String).str.starts_with(REFERENCE))
    answers: dict[tuple[str, str, str], dict[str, str]] = {}
    for run_id, metric, claim, pairing, status in of_references.select(*_CLAIM, "pairing", "status").iter_rows():
        answers.setdefault((run_id, metric, claim), {})[str(pairing).removeprefix(REFERENCE)] = str(status)
    found: list[dict[str, Any]] = []
    for key, statuses in answers.items():
        status, reason = _judged(statuses)
        row = dict(zip(_CLAIM, key, strict=True))
        found.append({**row, "pairing": EVERY_REFERENCE, "status": status, "reason": reason})
    return pl.DataFrame(found, schema=BATTERY_SCHEMA)


def _judged(statuses: dict[str, str]) -> tuple[str, str]:
    applies = {name: status for name, status in statuses.items() if status != NOT_APPLICABLE}
    good = {name: status for name, status in applies.items() if name not in CONTROLS}
    controls = {name: status for name, status in applies.items() if name in CONTROLS}
    listed = _listed(good) + (f"; controls: {_listed(controls)}" if controls else "; no control applies")
    if gone := [name for name in statuses if name not in applies]:
        listed += f"; not applicable at {', '.join(gone)}"
    if not good:
        return NOT_APPLICABLE, f"the claim applies at no good reference point; {listed.removeprefix('; ')}"
    answers = set(good.values())
    if len(answers) > 1:
        return NOT_ROBUST, f"the answer depends on the reference point: {listed}"
    if answers == {"INCONCLUSIVE"}:
        return NOT_ROBUST, f"no good reference point gives an answer: {listed}"
    if len(good) == 1:
        return NOT_ROBUST, f"only one good reference point applies: {listed}"
    if not controls:
        return NOT_ROBUST, f"nothing tells it from a point that is no solution: {listed}"
    if same := [name for name, status in controls.items() if status in answers]:
        return NOT_ROBUST, f"a point that is no solution ({', '.join(same)}) gives the same answer: {listed}"
    return ROBUST, f"the same at every good reference point, and not at the controls: {listed}"


def _listed(statuses: dict[str, str]) -> str:
    """``HOLDS at last, ema``, answer by answer."""
    answers = dict.fromkeys(statuses.values())
    return ", ".join(f"{a} at {', '.join(n for n, s in statuses.items() if s == a)}" for a in answers)
