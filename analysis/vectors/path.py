"""The table ``path``: what is known of each step besides its pairs."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from analysis.columns import PATH
from analysis.vectors.kernel import Array, Carried
from analysis.vectors.long import LateColumns, Rows
from analysis.vectors.pairs import Reduced
from analysis.vectors.passes import Pass, Segment
from analysis.vectors.products import HALVES
from tracer.errors import UsageError

WINDOW = 100
"""Steps of a window; windows begin at its multiples, and where a stretch of consecutive steps begins."""

AT = {name: i for i, name in enumerate(PATH)}
_NEEDS = {"x_d": 1, "g_gprev": 1, "d_max": 1, "d_dprev": 2}  # so many steps before it
_PLAIN = ("x_x", "g_x", "g_sum", "gsum_gsum", "wsum_wsum", "wmove_wmove")
_OURS = (*_NEEDS, *_PLAIN, *HALVES, "dg_sum", "gmove", "step_step")


def opening(segment: Segment) -> npt.NDArray[np.bool_]:
    """Which steps open a window, shape ``(n,)``."""
    opens: npt.NDArray[np.bool_] = segment.steps % WINDOW == 0
    opens[0] |= segment.before is None
    return opens


class Along:
    """Sums along a stretch of consecutive steps, carried from segment to segment.

    They need 24 bytes of memory per parameter of a float32 trace, 32 of a float64 one.

    Args:
        columns: the coordinates whose sums are kept.
    """

    def __init__(self, parameters: int, dtype: str, columns: slice = slice(None)) -> None:
        self._columns = columns
        self._x0, self._xw = np.zeros(parameters, dtype), np.zeros(parameters, dtype)
        self._past, self._window = np.zeros(parameters), np.zeros(parameters)

    def carried(self, segment: Segment) -> Carried:
        """What the kernel carries on through ``segment``."""
        if segment.before is None:
            self._x0[self._columns] = segment.streams["x"][0][self._columns]
            self._past[self._columns] = self._window[self._columns] = 0
        return Carried(self._x0, self._xw, self._past, self._window, opening(segment))


class Path:
    """Rows of the table: from the kernel's products and from the passes.

    Args:
        passes: further columns; where two give the same one, the later pass has it.

    Raises:
        UsageError: a pass gives a column that is not of this table, or is computed here.
    """

    def __init__(self, passes: Iterable[Pass]) -> None:
        self._passes = tuple(passes)
        owner = {name: i for i, each in enumerate(self._passes) for name in each.columns}
        open_to_all = set(PATH) - set(_OURS)
        if strange := sorted(set(owner) - open_to_all):
            raise UsageError(f"Columns {strange} of a pass: expected some of {sorted(open_to_all)}.")
        self._here = [
            tuple(n for n in p.columns if owner[n] == i and n not in p.ahead) for i, p in enumerate(self._passes)
        ]
        self._ahead = [tuple(n for n in p.ahead if owner[n] == i) for i, p in enumerate(self._passes)]
        late = ["step_step", *(name for names in self._ahead for name in names)]
        self._late = LateColumns([AT[name] for name in late])
        self._moved: Array | None = None
        self._opened = 0  # the step that opened the present window

    def rows(self, r: Reduced) -> Rows:
        """Rows that are complete with this segment."""
        segment, width = r.segment, r.of.shape[1]
        rows = Rows.empty(segment.steps, width, len(PATH))
        for name in _PLAIN:
            rows.put(AT[name], r[name])
        for name, needs in _NEEDS.items():
            rows.put(AT[name], r[name], r.back < needs)
        rows.put(AT["gprev_gprev"], r.one_before("gx_gx"), r.back < 1)
        rows.put(AT["dprev_dprev"], r.one_before("d_d"), r.back < 2)
        rows.put(AT["wcount"], self._wcount(r)[:, None])
        rows.put(AT["dg_sum"], r["dg_sum"], ~r.recorded("h"))
        for name in HALVES:
            rows.put(AT[name], r[name], ~(r.recorded("ga") & r.recorded("gb")))
        rows.put(AT["gmove"], self._gmove(r))
        late, late_missing = [r["d_d"][:, :, None]], [(r.back == 0)[:, None]]
        for each, here, coming in zip(self._passes, self._here, self._ahead, strict=True):
            values, missing = each.over(segment)
            whole = np.concatenate([values.sum(axis=1, keepdims=True), values], axis=1)
            for name in here:
                i = each.columns.index(name)
                rows.put(AT[name], whole[:, :, i], missing[:, i])
            chosen = [each.columns.index(name) for name in coming]
            late.append(whole[:, :, chosen])
            late_missing.append(missing[:, chosen])
        return self._late.complete(
            rows[: segment.graded],
            np.concatenate(late, axis=2),
            np.concatenate(late_missing, axis=1),
            segment.before is not None,
        )

    def rest(self) -> list[Rows]:
        """The last step's row, whose next point is not there."""
        return self._late.rest()

    def _wcount(self, r: Reduced) -> Array:
        """How many steps of the window there are so far, each step with a gradient counting itself."""
        opens = opening(r.segment)
        steps = r.segment.steps
        since = np.maximum.accumulate(np.where(opens, steps, self._opened))
        self._opened = int(since[-1])
        return (steps - since + 1).astype(np.float64)

    def _gmove(self, r: Reduced) -> Array:
        """The sum so far; the steps are added one by one, so that it does not matter where segments end."""
        terms = r["g_moved"]
        if r.segment.before is not None and self._moved is not None:
            terms = np.concatenate([self._moved[None], terms])
        sums = np.cumsum(terms, axis=0)
        self._moved = sums[-1]
        return sums[-len(r.back) :]
