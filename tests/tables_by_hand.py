"""Geometry tables from arrays, in plain numpy: what the kernel should give, without the kernel or any file."""

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from analysis.tables import MODEL, PAIRINGS, Facts, Tables
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


def tables(
    run: Run,
    look_back: bool = True,
    losses: bool = True,
    blocks: int = 1,
    steps: Array | None = None,
    hyperparameters: dict[str, Any] | None = None,
    **facts: Any,
) -> Tables:
    """Tables of a run whose parameters are cut into ``blocks`` equal parts, with steps 0, 1, … unless given."""
    n, size = run.x.shape
    steps = np.arange(n) if steps is None else np.asarray(steps)
    cuts = dict(zip([f"w{i}" for i in range(blocks)], np.array_split(np.arange(size), blocks), strict=True))
    everything = {MODEL: np.arange(size), **cuts}
    schema = pl.Enum(list(everything))
    follows = np.flatnonzero(np.diff(steps) == 1) + 1
    pairs = [("previous", run.h if look_back else None)]
    if not look_back:
        pairs.append(("unpaired", np.vstack([run.g[:1], run.g[:-1]]) if n else run.g))
    geometry = [
        _pair_row(run, t, pairing, other, block, columns, losses, look_back, int(steps[t]))
        for pairing, other in pairs
        for t in follows
        for block, columns in everything.items()
    ]
    path = [
        _path_row(run, t, t in follows, block, columns, int(steps[t]))
        for t in range(n)
        for block, columns in everything.items()
    ]
    records = {
        "step": steps,
        "loss": [float(v) if losses else None for v in run.loss],
        "lr": run.lr,
        **{name: [float(value)] * n for name, value in (hyperparameters or {}).items()},
    }
    known = replace(FACTS, parameters=size, has_look_back=look_back, blocks=tuple(cuts), **facts)
    return Tables(
        pl.DataFrame(geometry, schema=_geometry_schema(schema), orient="row").lazy(),
        pl.DataFrame(path, schema=_path_schema(schema), orient="row").lazy(),
        pl.DataFrame(records, schema_overrides={"step": pl.Int64, "loss": pl.Float64, "lr": pl.Float64}).lazy(),
        known,
    )


def geometry_tables(rows: dict[str, Any], steps: dict[str, Any] | None = None, **facts: Any) -> Tables:
    """Tables of the model alone, pairing previous, from columns of the geometry; the others are 1."""
    n = len(next(iter(rows.values())))
    schema = _geometry_schema(pl.Enum([MODEL]))
    table = {name: rows.get(name, [1.0] * n) for name in schema}
    table |= {"pairing": rows.get("pairing", ["previous"] * n), "step": np.arange(1, n + 1), "block": [MODEL] * n}
    records = {"step": np.arange(n + 1), "lr": [0.1] * (n + 1), **(steps or {})}
    return Tables(
        pl.DataFrame(table, schema=schema, strict=False).lazy(),
        pl.DataFrame(schema=_path_schema(pl.Enum([MODEL]))).lazy(),
        pl.DataFrame(records, schema_overrides={"lr": pl.Float64}).lazy(),
        replace(FACTS, **facts),
    )


_PRODUCTS = ("loss_x", "loss_y", "d_d", "gx_d", "gy_d", "dg_d", "dg_dg", "gx_gx", "gy_gy", "gx_gy")


def _geometry_schema(block: pl.Enum) -> dict[str, Any]:
    return {"pairing": pl.Enum(PAIRINGS), "step": pl.Int64, "block": block, **dict.fromkeys(_PRODUCTS, pl.Float64)}


def _path_schema(block: pl.Enum) -> dict[str, Any]:
    names = ("x_x", "g_x", "x_d", "g_gprev", "d_dprev")
    return {"step": pl.Int64, "block": block, **dict.fromkeys(names, pl.Float64)}


def _pair_row(
    run: Run,
    t: int,
    pairing: str,
    other: Array | None,
    block: str,
    columns: Array,
    losses: bool,
    look_back: bool,
    step: int,
) -> tuple[Any, ...]:
    d, gx = (run.x[t] - run.x[t - 1])[columns], run.g[t][columns]
    loss_x = loss_y = None
    if losses and block == MODEL:
        loss_x = float(run.loss[t])
        loss_y = float(run.loss[t - 1]) if pairing == "unpaired" else float(run.loss_previous[t]) if look_back else None
    gy_d = dg_d = dg_dg = gy_gy = gx_gy = None
    if other is not None:
        gy = other[t][columns]
        dg = gx - gy
        gy_d, dg_d, dg_dg, gy_gy, gx_gy = (float(v) for v in (gy @ d, dg @ d, dg @ dg, gy @ gy, gx @ gy))
    one = (float(d @ d), float(gx @ d))
    return (pairing, step, block, loss_x, loss_y, *one, gy_d, dg_d, dg_dg, float(gx @ gx), gy_gy, gx_gy)


def _path_row(run: Run, t: int, follows: bool, block: str, columns: Array, step: int) -> tuple[Any, ...]:
    x, g = run.x[t][columns], run.g[t][columns]
    x_d = float(x @ (run.x[t] - run.x[t - 1])[columns]) if follows else None
    g_gprev = float(g @ run.g[t - 1][columns]) if follows else None
    return (step, block, float(x @ x), float(g @ x), x_d, g_gprev, None)
