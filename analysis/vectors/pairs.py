"""The pairings of one segment: which products of the kernel become which column, and what is missing."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.arrays import filled, missing
from analysis.columns import GEOMETRY
from analysis.vectors.long import Bools, Floats, Rows
from analysis.vectors.passes import Segment
from analysis.vectors.products import PAIR, PRODUCTS

AT = {name: i for i, name in enumerate(GEOMETRY)}
LATE = [AT["d_ahead"]]
_OF = {name: i for i, name in enumerate(PRODUCTS)}
_OF_LOOK_BACK = frozenset({"gy_d", "dg_d", "dg_dg", "gy_gy", "gx_gy"})
_OF_LOOK_AHEAD = frozenset({"gx_d", "dg_d", "dg_dg", "gx_gx", "gx_gy"})
_NORMS = {"d_d": "d_norms", "dg_dg": "dg_norms"}


@dataclass(frozen=True)
class Reduced:
    """A segment's ``n`` steps with their products, and those of the step before.

    Args:
        of, to: from :func:`analysis.vectors.products.products`.
        of_before: products of the last step of the segment before, shape ``(1 + blocks, 29)``; None without one.
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
        return filled(column, np.nan), missing(column) if self.losses else np.ones(len(column), bool)

    def loss_before(self, name: str) -> tuple[Floats, Bools]:
        """The same of the step before each one."""
        values, missing = self.loss(name)
        before = self.segment.before
        first = before.record[name][0] if before is not None else None
        gone = first is None or not self.losses
        return np.append([np.nan if first is None else first], values[:-1]), np.append([gone], missing[:-1])


def previous(r: Reduced) -> Rows:
    """x = x_t, y = x_{t−1} on z_t, for the steps that have a gradient and a step before them."""
    found = {name: r[name] for name in PAIR}
    rows = _rows(r, found, (r.loss("loss"), r.loss("loss_previous")), ~r.recorded("h"), _OF_LOOK_BACK)
    return rows[_has_pair(r)]


def unpaired(r: Reduced) -> Rows:
    """x = x_t on z_t, y = x_{t−1} on z_{t−1}, of the model alone."""
    probed = r.recorded("h")[:, None]
    squares, before, both = r["gx_gx"], r.one_before("gx_gx"), r["g_gprev"]
    # without a probe the kernel took g_{t−1} for the second gradient, and formed the difference first
    difference = np.where(probed, np.maximum(squares + before - 2 * both, 0.0), r["dg_dg"])
    slope = np.where(probed, r["gx_d"] - r["gprev_d"], r["dg_d"])
    found = {"gy_d": r["gprev_d"], "dg_d": slope, "dg_dg": difference, "gy_gy": before, "gx_gy": both}
    found |= {name: r[name] for name in ("d_d", "gx_d", "gx_gx")}
    return _rows(r, found, (r.loss("loss"), r.loss_before("loss")), blocks=False)[_has_pair(r)]


def following(r: Reduced, blocks: bool) -> Rows:
    """x = x_{t+1}, y = x_t on z_t, for steps t whose next point is known here; of the model alone unless ``blocks``.

    The rows of the segment stand for t + 1.
    """
    before = r.segment.before
    first = before is not None and "a" in before.streams
    unprobed = ~np.append(first, r.recorded("a")[:-1])
    found = {name: r[f"next {name}"] for name in _OF_LOOK_AHEAD}
    found |= {"d_d": r["d_d"], "gy_d": r["gprev_d"], "gy_gy": r.one_before("gx_gx")}
    losses = (r.loss_before("loss_next"), r.loss_before("loss"))
    rows = _rows(r, found, losses, unprobed, _OF_LOOK_AHEAD, blocks)[r.back > 0]
    return Rows(rows.steps - 1, rows.values, rows.missing)


def to_reference(r: Reduced, k: int, blocks: bool) -> tuple[Rows, Floats, Bools]:
    """x = x_t, y = the reference point ``k`` on z_t, for the steps with a gradient; and d_ahead of the steps before."""
    found = {"d_d": r.to[:, :, k, 0], "gx_d": r.to[:, :, k, 1], "y_y": r.to[:, :, k, 3], "gx_gx": r["gx_gx"]}
    unknown = np.full(len(r.back), np.nan), np.ones(len(r.back), bool)
    rows = _rows(r, found, (r.loss("loss"), unknown), blocks=blocks)
    ahead = r.to[:, : rows.values.shape[1], k, 2:3].copy()
    return rows[: r.segment.graded], ahead, (r.back == 0)[:, None].copy()


def _rows(
    r: Reduced,
    found: dict[str, Floats],
    losses: tuple[tuple[Floats, Bools], ...],
    gone: Bools | bool = False,
    of_gone: frozenset[str] = frozenset(),
    blocks: bool = True,
) -> Rows:
    """Rows of products ``found``, those ``of_gone`` missing where ``gone``; with the blocks or without."""
    width = r.of.shape[1] if blocks else 1
    rows = Rows.empty(r.segment.steps, width, len(GEOMETRY))
    for name, values in found.items():
        missing = gone if name in of_gone else False
        rows.put(AT[name], values[:, :width], missing)
        if name in _NORMS:
            norms = np.sqrt(values)
            norms[:, 0] = norms[:, 1:].sum(axis=1)
            rows.put(AT[_NORMS[name]], norms[:, :width], missing)
    for name, (of_model, missing) in zip(("loss_x", "loss_y"), losses, strict=True):
        rows.values[:, 0, AT[name]] = of_model  # the loss belongs to the whole model and stands on that row alone
        rows.missing[:, AT[name]] = missing
    return rows


def _has_pair(r: Reduced) -> Bools:
    return (r.back > 0) & r.recorded("g")
