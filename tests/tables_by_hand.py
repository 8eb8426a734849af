"""Geometry tables from arrays, in plain numpy: what the kernel should give, without the kernel or any file."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from analysis.columns import GEOMETRY, PATH
from analysis.tables import MODEL, REFERENCE, Facts, Tables, pairing_type
from tests.problems import Array, Run

FACTS = Facts(
    run_id="by-hand",
    digest="0",
    parameters=0,
    dtype="float64",
    loss_dtype="float64",
    optimizer_class="torch.optim.sgd.SGD",
    has_look_back=True,
    blocks=("w",),
)
WINDOW = 100
Row = dict[str, Any]


def tables(
    run: Run,
    look_back: bool = True,
    losses: bool = True,
    blocks: int | Iterable[int] = 1,
    steps: Array | None = None,
    hyperparameters: dict[str, Any] | None = None,
    look_ahead: bool = False,
    halves: tuple[Array, Array] | None = None,
    references: Mapping[str, Array] | None = None,
    pairings: tuple[str, ...] | None = None,
    **facts: Any,
) -> Tables:
    """Tables of a run cut into ``blocks`` equal parts (or parts of these sizes), with steps 0, 1, … unless given.

    A reference is one point, shape ``(p,)``, or one for each step, shape ``(n, p)``. The other ``pairings`` are
    "previous" unless given, "next" with ``look_ahead``, "unpaired" without ``look_back``; a geometry has them all.
    """
    n, size = run.x.shape
    steps = np.arange(n) if steps is None else np.asarray(steps)
    edges = np.cumsum([0, *(blocks if not isinstance(blocks, int) else map(len, np.array_split(run.x[0:1].T, blocks)))])
    cuts = {f"w{i}": slice(a, b) for i, (a, b) in enumerate(pairwise(edges))}
    points = run.x if run.final is None else np.vstack([run.x, run.final])
    ends = np.flatnonzero(np.diff(np.append(steps, steps[-1:] + 1)) != 1)  # steps whose next point is not there
    follows = np.array([t > 0 and t - 1 not in ends for t in range(n)], bool)
    leads = np.array([t not in ends and t + 1 < len(points) for t in range(n)], bool)
    loss = run.loss if losses else np.full(n, None)
    if pairings is None:
        pairings = ("previous", *(["next"] if look_ahead else []), *([] if look_back else ["unpaired"]))

    def rows(pairing: str, x: Array, y: Array, gx: Array | None, gy: Array | None, lx: Any, ly: Any, all_: bool) -> Any:
        return lambda t: [
            {"pairing": pairing, "step": int(steps[t]), **row}
            for row in _pair(x[t], y[t], *(None if g is None else g[t] for g in (gx, gy)), lx[t], ly[t], cuts)
        ][: (None if all_ else 1) if pairing in pairings or REFERENCE in pairing else 0]

    back, none = np.maximum(np.arange(n) - 1, 0), np.full(n, None)
    ahead = np.minimum(np.arange(n) + 1, len(points) - 1)
    before = run.loss_previous if losses and look_back else none
    at_next = run.loss_next if losses and look_ahead else none
    a = run.a if look_ahead else None
    geometry: list[Row] = []
    one = rows("previous", run.x, run.x[back], run.g, run.h if look_back else None, loss, before, True)
    geometry += [row for t in np.flatnonzero(follows) for row in one(t)]
    one = rows("next", points[ahead], run.x, a, run.g, at_next, loss, look_ahead)
    geometry += [row for t in np.flatnonzero(leads) for row in one(t)]
    one = rows("unpaired", run.x, run.x[back], run.g, run.g[back], loss, loss[back], False)
    geometry += [row for t in np.flatnonzero(follows) for row in one(t)]
    for name, given in (references or {}).items():
        point = np.broadcast_to(given, run.x.shape)
        one = rows(REFERENCE + name, run.x, point, run.g, None, loss, none, name == "last")
        for t in range(n):
            e, d = run.x[t] - point[t], points[ahead[t]] - run.x[t]
            extra = [e @ d, *(e[c] @ d[c] for c in cuts.values())] if leads[t] else [None] * (1 + len(cuts))
            norms = [point[t, c] @ point[t, c] for c in (slice(None), *cuts.values())]
            geometry += [
                {**row, "d_ahead": more, "y_y": norm} for row, more, norm in zip(one(t), extra, norms, strict=False)
            ]
    path = [row for t in range(n) for row in _path(run, points, steps, follows, leads, look_back, halves, cuts, t)]
    records = {
        "step": steps,
        "loss": [float(v) if losses else None for v in run.loss],
        "lr": run.lr,
        **{name: [float(value)] * n for name, value in (hyperparameters or {}).items()},
    }
    names = tuple(references or ())
    known = replace(
        FACTS, **{"parameters": size, "has_look_back": look_back, "blocks": tuple(cuts), "references": names} | facts
    )
    kinds = {"pairing": pairing_type(names), "step": pl.Int64, "block": pl.Enum([MODEL, *cuts])}
    return Tables(
        pl.DataFrame(geometry, schema={**kinds, **dict.fromkeys(GEOMETRY, pl.Float64)}).lazy(),
        pl.DataFrame(path, schema={**dict(list(kinds.items())[1:]), **dict.fromkeys(PATH, pl.Float64)}).lazy(),
        pl.DataFrame(records, schema_overrides={"step": pl.Int64, "loss": pl.Float64, "lr": pl.Float64}).lazy(),
        known,
    )


def geometry_tables(rows: dict[str, Any], steps: dict[str, Any] | None = None, **facts: Any) -> Tables:
    """Tables of the model alone, pairing previous, from columns of the geometry; the others are 1."""
    n = len(next(iter(rows.values())))
    schema = {"pairing": pairing_type(()), "step": pl.Int64, "block": pl.Enum([MODEL])}
    numbers = dict.fromkeys(GEOMETRY, pl.Float64)
    table = {name: rows.get(name, [1.0] * n) for name in numbers}
    table |= {"pairing": rows.get("pairing", ["previous"] * n), "step": np.arange(1, n + 1), "block": [MODEL] * n}
    records = {"step": np.arange(n + 1), "lr": [0.1] * (n + 1), **(steps or {})}
    path = {"step": pl.Int64, "block": pl.Enum([MODEL]), **dict.fromkeys(PATH, pl.Float64)}
    return Tables(
        pl.DataFrame(table, schema={**schema, **numbers}, strict=False).lazy(),
        pl.DataFrame(schema=path).lazy(),
        pl.DataFrame(records, schema_overrides={"lr": pl.Float64}).lazy(),
        replace(FACTS, **facts),
    )


def _pair(
    x: Array, y: Array, gx: Array | None, gy: Array | None, loss_x: Any, loss_y: Any, cuts: dict[str, slice]
) -> list[Row]:
    """Rows of one pair, the model first."""
    found = []
    for block, c in {MODEL: slice(None), **cuts}.items():
        d = (x - y)[c]
        row: Row = {"block": block, "d_d": d @ d}
        if gx is not None:
            row |= {"gx_d": gx[c] @ d, "gx_gx": gx[c] @ gx[c]}
        if gy is not None:
            row |= {"gy_d": gy[c] @ d, "gy_gy": gy[c] @ gy[c]}
        if gx is not None and gy is not None:
            dg = (gx - gy)[c]
            row |= {"dg_d": dg @ d, "dg_dg": dg @ dg, "gx_gy": gx[c] @ gy[c]}
        if block == MODEL:
            row |= {"loss_x": loss_x, "loss_y": loss_y}
        for name, square in (("d_norms", "d_d"), ("dg_norms", "dg_dg")):
            row[name] = np.sqrt(row[square]) if square in row else None
        found.append(row)
    for name in ("d_norms", "dg_norms"):
        found[0][name] = None if found[0][name] is None else sum(row[name] for row in found[1:])
    return found


def _path(
    run: Run,
    points: Array,
    steps: Array,
    follows: Array,
    leads: Array,
    look_back: bool,
    halves: tuple[Array, Array] | None,
    cuts: dict[str, slice],
    t: int,
) -> list[Row]:
    """Rows of one step, the model first."""
    first = next(s for s in range(t, -1, -1) if not follows[s])  # of this stretch of consecutive steps
    window = max(first, t - int(steps[t]) % WINDOW)
    total, since = run.g[first : t + 1].sum(axis=0), run.g[window : t + 1].sum(axis=0)
    found = []
    for block, c in {MODEL: slice(None), **cuts}.items():
        x, g, moved = run.x[t, c], run.g[t, c], (run.x[t] - run.x[window])[c]
        row: Row = {"step": int(steps[t]), "block": block, "x_x": x @ x, "g_x": g @ x, "g_sum": np.abs(g).sum()}
        row |= {"gsum_gsum": total[c] @ total[c], "wsum_wsum": since[c] @ since[c], "wmove_wmove": moved @ moved}
        row["wcount"] = float(t - window + 1)
        row["gmove"] = sum(run.g[s, c] @ (run.x[s] - run.x[first])[c] for s in range(first, t + 1))
        if follows[t]:
            d = (run.x[t] - run.x[t - 1])[c]
            before = run.g[t - 1, c]
            row |= {"x_d": x @ d, "g_gprev": g @ before, "gprev_gprev": before @ before}
            row["d_max"] = np.abs(d).max(initial=0.0)
            if follows[t - 1]:
                last = (run.x[t - 1] - run.x[t - 2])[c]
                row |= {"d_dprev": d @ last, "dprev_dprev": last @ last}
        if look_back and not np.isnan(run.h[t]).any():
            row["dg_sum"] = np.abs(g - run.h[t, c]).sum()
        if halves is not None:
            a, b = (half[t, c] for half in halves)
            row |= {"ga_gb": a @ b, "ga_ga": a @ a, "gb_gb": b @ b}
        if leads[t]:
            ahead = (points[t + 1] - run.x[t])[c]
            row["step_step"] = ahead @ ahead
        found.append(row)
    return found
