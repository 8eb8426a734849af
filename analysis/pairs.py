"""The pairings of one segment: which products of the kernel become which column, and what is missing."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.columns import GEOMETRY
from analysis.long import Bools, Floats, Rows
from analysis.passes import Segment
from analysis.products import PAIR, PRODUCTS

AT = {name: i for i, name in enumerate(GEOMETRY)}
LATE = [AT["d_ahead"]]
_OF = {name: i for i, name in enumerate(PRODUCTS)}
_OF_LOOK_BACK = {"gy_d", "dg_d", "dg_dg", "gy_gy", "gx_gy"}


@dataclass(frozen=True)
class Reduced:
    """A segment's ``n`` steps with their products, and those of the step before.

    Args:
        of, to: from :func:`analysis.products.products`.
        of_before: products of the step before the first, shape ``(1 + blocks, 29)``; None where there is none.
        back: how many of the steps just before each one are there, at most 2; shape ``(n,)``.
        losses: whether they may stand beside the products.
    """

    segment: Segment
    of: Floats
    to: Floats
    of_before: Floats | None
    back: npt.NDArray[np.int64]
    losses: bool

    def __getitem__(self, name: str) -> Floats:
        """One product of each step, shape ``(n, 1 + blocks)``."""
        return self.of[:, :, _OF[name]]

    def one_before(self, name: str) -> Floats:
        """One product of the step before each one; anything where that step is not there."""
        first = self.of[:1] if self.of_before is None else self.of_before[None]
        return np.concatenate([first, self.of[:-1]])[:, :, _OF[name]]

    def recorded(self, stream: str) -> Bools:
        """Whether each step has that stream."""
        return self.segment.has.get(stream, np.zeros(len(self.back), bool))

    def loss(self, name: str) -> tuple[Floats, Bools]:
        """A loss of each step and where it is missing, shape ``(n,)``."""
        column = self.segment.records[name]
        missing = column.is_null().to_numpy() if self.losses else np.ones(len(column), bool)
        return column.fill_null(np.nan).to_numpy(), missing

    def loss_before(self, name: str) -> tuple[Floats, Bools]:
        """The same of the step before each one."""
        values, missing = self.loss(name)
        before = self.segment.before
        first = before.record[name][0] if before is not None else None
        gone = first is None or not self.losses
        return np.append([np.nan if first is None else first], values[:-1]), np.append([gone], missing[:-1])


def previous(r: Reduced) -> Rows:
    """x = x_t, y = x_{t−1} on z_t, for the steps that have a gradient and a step before them."""
    rows, unprobed = _blank(r), ~r.recorded("h")
    for name in PAIR:
        rows.put(AT[name], r[name], unprobed if name in _OF_LOOK_BACK else False)
    _norms(rows)
    _losses(rows, r.loss("loss"), r.loss("loss_previous"))
    return rows[_has_pair(r)]


def unpaired(r: Reduced) -> Rows:
    """x = x_t on z_t, y = x_{t−1} on z_{t−1}, of the model alone."""
    rows, probed = _blank(r), r.recorded("h")[:, None]
    squares, before, both = r["gx_gx"], r.one_before("gx_gx"), r["g_gprev"]
    # without a probe the kernel took g_{t−1} for the second gradient, and formed the difference first
    difference = np.where(probed, np.maximum(squares + before - 2 * both, 0.0), r["dg_dg"])
    slope = np.where(probed, r["gx_d"] - r["gprev_d"], r["dg_d"])
    found = {"gy_d": r["gprev_d"], "dg_d": slope, "dg_dg": difference, "gy_gy": before, "gx_gy": both}
    for name in PAIR:
        rows.put(AT[name], found.get(name, r[name]))
    _norms(rows)
    _losses(rows, r.loss("loss"), r.loss_before("loss"))
    return _model(rows[_has_pair(r)])


def following(r: Reduced, blocks: bool) -> Rows:
    """x = x_{t+1}, y = x_t on z_t, for steps t whose next point is known here; of the model alone unless ``blocks``.

    The rows of the segment stand for t + 1.
    """
    rows, before = _blank(r), r.segment.before
    first = before is not None and "a" in before.streams
    unprobed = ~np.append(first, r.recorded("a")[:-1])
    rows.steps[:] = r.segment.steps - 1
    rows.put(AT["d_d"], r["d_d"])
    rows.put(AT["gy_d"], r["gprev_d"])
    rows.put(AT["gy_gy"], r.one_before("gx_gx"))
    for name in ("gx_d", "dg_d", "dg_dg", "gx_gx", "gx_gy"):
        rows.put(AT[name], r[f"next {name}"], unprobed)
    _norms(rows)
    _losses(rows, r.loss_before("loss_next"), r.loss_before("loss"))
    rows = rows[r.back > 0]
    return rows if blocks else _model(rows)


def to_reference(r: Reduced, k: int, blocks: bool) -> tuple[Rows, Floats, Bools]:
    """x = x_t, y = the reference point ``k`` on z_t, for the steps with a gradient; and d_ahead of the steps before."""
    rows = _blank(r)
    rows.put(AT["d_d"], r.to[:, :, k, 0])
    rows.put(AT["gx_d"], r.to[:, :, k, 1])
    rows.put(AT["gx_gx"], r["gx_gx"])
    _norms(rows)
    _losses(rows, r.loss("loss"), (np.full(len(r.back), np.nan), np.ones(len(r.back), bool)))
    ahead, missing = r.to[:, :, k, 2:].copy(), (r.back == 0)[:, None].copy()
    rows = rows[: r.segment.graded]
    return (rows, ahead, missing) if blocks else (_model(rows), ahead[:, :1], missing)


def _blank(r: Reduced) -> Rows:
    return Rows.empty(r.segment.steps.copy(), r.of.shape[1], len(GEOMETRY))


def _has_pair(r: Reduced) -> Bools:
    return (r.back > 0) & r.recorded("g")


def _model(rows: Rows) -> Rows:
    return Rows(rows.steps, rows.values[:, :1], rows.missing)


def _norms(rows: Rows) -> None:
    """Sums of the blocks' norms from their squares."""
    for name, square in (("d_norms", AT["d_d"]), ("dg_norms", AT["dg_dg"])):
        norms = np.sqrt(rows.values[:, :, square])
        norms[:, 0] = norms[:, 1:].sum(axis=1)
        rows.put(AT[name], norms, rows.missing[:, square])


def _losses(rows: Rows, x: tuple[Floats, Bools], y: tuple[Floats, Bools]) -> None:
    """The loss belongs to the whole model and stands on that row alone."""
    for name, (values, missing) in (("loss_x", x), ("loss_y", y)):
        rows.values[:, 0, AT[name]] = values
        rows.missing[:, AT[name]] = missing
