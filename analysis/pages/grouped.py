"""Verdicts for reading: by family, the worst first, all reference points of one claim in one row.

A claim about reference points has a verdict per point. One row says what the points a proof may speak of (the last
point, means, the best loss) have in common, and whether the negative controls (the first point, a random one) answer
otherwise: a verdict that they share says nothing about the reference.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.judging.battery import CONTROLS as CONTROLS
from analysis.judging.verdict import FAILS, HOLDS, INCONCLUSIVE, NOT_APPLICABLE
from analysis.metric import FAMILIES
from analysis.tables import REFERENCE, pairing_kind

STATUSES = (FAILS, INCONCLUSIVE, HOLDS, NOT_APPLICABLE)
Row = Mapping[str, Any]
_POINTS = {"previous": "fresh", "next": "in-sample", "reference": "reference points"}


@dataclass(frozen=True)
class Group:
    """One claim at one kind of pairing.

    Args:
        status: the worst of the rows that count; negative controls do not.
        row: the verdict that is shown for all of them.
        rows: all verdicts, one unless there are several reference points.
        agreement: what the reference points have in common, in words; empty where there is one verdict.
    """

    status: str
    row: Row
    rows: tuple[Row, ...]
    agreement: str = ""

    @property
    def metric(self) -> str:
        """Name of the metric."""
        return str(self.row["metric"])

    @property
    def claim(self) -> str:
        """Name of the claim."""
        return str(self.row["claim"])

    @property
    def points(self) -> str:
        """Which pairs, in a word."""
        if len(self.rows) > 1:
            return f"{len(self.rows)} reference points"
        return points(self.row["pairing"])

    @property
    def label(self) -> str:
        """The status, and at how many of the reference points where they differ."""
        counted = [row for row in self.rows if not is_control(row)] or list(self.rows)
        same = sum(row["status"] == self.status for row in counted)
        return self.status if same == len(counted) else f"{self.status} at {same} of {len(counted)}"


@dataclass(frozen=True)
class Family:
    """What came out for the metrics of one family."""

    letter: str
    title: str
    groups: tuple[Group, ...]
    descriptive: tuple[str, ...]

    @property
    def slug(self) -> str:
        """For links."""
        return f"family-{self.letter or 'own'}"

    @property
    def judged(self) -> list[Group]:
        """Claims that apply to the run, the worst first."""
        return [group for group in self.groups if group.status != NOT_APPLICABLE]

    @property
    def not_applicable(self) -> list[Group]:
        """Claims that do not apply."""
        return [group for group in self.groups if group.status == NOT_APPLICABLE]

    @property
    def counts(self) -> dict[str, int]:
        """Claims per status."""
        return {status: sum(group.status == status for group in self.groups) for status in STATUSES}


def families(letters: Mapping[str, str], verdicts: Iterable[Row]) -> list[Family]:
    """All verdicts by family; unpaired rows, which are never judged, are left out.

    Args:
        letters: the family's letter by metric; one that is not there, or not known, counts as the user's own.
        verdicts: rows of verdict tables.
    """
    rows = [row for row in verdicts if row["pairing"] != "unpaired"]
    own = {name: letter if letter in FAMILIES else "" for name, letter in letters.items()}
    found = []
    for letter, title in FAMILIES.items():
        mine = [row for row in rows if own.get(row["metric"], "") == letter]
        described = tuple(dict.fromkeys(row["metric"] for row in mine if row["rule"] == "none"))
        judged = [row for row in mine if row["rule"] != "none"]
        if mine:
            found.append(Family(letter, title, tuple(groups(judged)), described))
    return found


def groups(rows: Iterable[Row]) -> list[Group]:
    """One group per metric, claim and kind of pairing; FAILS first, within a status in the order of the rows."""
    together: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        together.setdefault((row["metric"], row["claim"], pairing_kind(row["pairing"])), []).append(row)
    return sorted(map(_group, together.values()), key=lambda group: STATUSES.index(group.status))


def points(pairing: str) -> str:
    """Name of a pairing for readers."""
    return pairing if pairing.startswith(REFERENCE) else _POINTS.get(pairing, pairing)


def is_control(row: Row) -> bool:
    """Whether the verdict is about a negative control."""
    return str(row["pairing"]).removeprefix(REFERENCE) in CONTROLS


def _group(rows: Sequence[Row]) -> Group:
    counted = [row for row in rows if not is_control(row)] or list(rows)
    status = min((row["status"] for row in counted), key=STATUSES.index)
    shown = next(row for row in counted if row["status"] == status)
    return Group(status, shown, tuple(rows), ". ".join(_agreement(rows)) if len(rows) > 1 else "")


def _agreement(rows: Sequence[Row]) -> Iterator[str]:
    good = [row for row in rows if not is_control(row)]
    controls = [row for row in rows if is_control(row)]
    statuses = {row["status"] for row in good}
    if statuses == {NOT_APPLICABLE}:
        return
    if len(statuses) == 1:
        yield f"The same at all {len(good)} reference points"
    else:
        parts = []
        for status in STATUSES:
            names = [row["pairing"].removeprefix(REFERENCE) for row in good if row["status"] == status]
            parts += [f"{status} at {', '.join(names)}"] * bool(names)
        yield "It depends on the reference point: " + "; ".join(parts)
    if controls and statuses == {row["status"] for row in controls}:
        yield "The negative controls answer the same, so it does not tell a reference from a point without meaning"
    elif controls and not statuses & {row["status"] for row in controls}:
        yield "The negative controls answer otherwise"
