"""Tables of a path on a known loss with every pairing a metric may ask for, in plain numpy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from analysis.columns import GEOMETRY, LOSSES, PATH
from analysis.measure import measure
from analysis.registry import metrics
from analysis.tables import MODEL, REFERENCE, Tables, pairing_type
from tests import real_path
from tests.problems import Array, Problem
from tests.tables_by_hand import FACTS

Row = dict[str, Any]
_RECORDS = ("loss", "loss_previous", "loss_next", "lr", "momentum", "weight_decay", "clip_factor")


METRICS = metrics()


def of(name: str, given: Tables, pairing: str = "previous", column: str = "value") -> Array:
    """A column of a metric's table at one pairing, of the whole model, in order of steps."""
    rows = measure(METRICS[name], given).table.filter(pl.col("pairing").cast(pl.String) == pairing)
    return rows[column].to_numpy()


def verdict(name: str, claim: str, given: Tables, pairing: str = "previous") -> Row:
    """The verdict on one claim of a metric at one pairing."""
    verdicts = measure(METRICS[name], given).verdicts
    return verdicts.filter((pl.col("claim") == claim) & (pl.col("pairing") == pairing)).row(0, named=True)


def walk(problem: Problem, lr: float, steps: int, momentum: float = 0.0, seed: int = 0) -> tuple[Array, list[Array]]:
    """Points ``(steps + 1, p)`` and minibatches of (stochastic) gradient descent with torch's momentum."""
    random = np.random.default_rng(seed)
    x, z, velocity = [problem.start.copy()], [], np.zeros_like(problem.start)
    for _ in range(steps):
        z.append(problem.draw(random))
        velocity = momentum * velocity + problem.grad(x[-1], z[-1])
        x.append(x[-1] - lr * velocity)
    return np.array(x), z


def along(
    points: Any, f: Callable[[Array], float], grad: Callable[[Array], Array]
) -> tuple[Problem, Array, list[Array]]:
    """A deterministic loss and given points, shape ``(n + 1,)`` or ``(n + 1, p)``, ready for :func:`tables_of`."""
    x = np.asarray(points, dtype=float)
    x = x[:, None] if x.ndim == 1 else x
    problem = Problem(f=lambda at, _: float(f(at)), grad=lambda at, _: np.asarray(grad(at), float), start=x[0])
    return problem, x, [np.zeros(0)] * (len(x) - 1)


def tables_of(
    problem: Problem,
    x: Array,
    z: Sequence[Array],
    references: Mapping[str, Any] | None = None,
    lr: float = 0.1,
    halves: Callable[[Array, Array], tuple[Array, Array]] | None = None,
    records: Mapping[str, Any] | None = None,
    **facts: Any,
) -> Tables:
    """Rows of the model: step t has x_t, z_t and x_{t+1}; reference losses and gradients are evaluated on each z_t."""
    named = {name: np.atleast_1d(np.asarray(at, float)) for name, at in (references or {"last": x[-1]}).items()}
    n = len(z)
    if real_path.wanted(n):
        made = [_record(problem, t, x, z[t], lr) | dict(records or {}) for t in range(n)]
        columns = {k: [row[k] for row in made] for k in made[0] if k not in ("step", *LOSSES)}
        return real_path.through(problem, x, z, columns, halves=halves, references=named, **facts)
    pairs = [("previous", t, x[t], x[t - 1]) for t in range(1, n)]
    pairs += [("next", t, x[t + 1], x[t]) for t in range(n)]
    pairs += [(REFERENCE + name, t, x[t], at) for name, at in named.items() for t in range(n)]
    geometry = [_pair(problem, pairing, t, x, z[t], to, since) for pairing, t, to, since in pairs]
    steps = [_record(problem, t, x, z[t], lr) | dict(records or {}) for t in range(n)]
    block = pl.Enum([MODEL])
    keys = {"pairing": pairing_type(tuple(named)), "step": pl.Int64, "block": block}
    return Tables(
        pl.DataFrame(geometry, schema=keys | dict.fromkeys(GEOMETRY, pl.Float64)).lazy(),
        pl.DataFrame(_path(problem, x, z, halves), schema=_path_schema(block)).lazy(),
        pl.DataFrame(steps, schema_overrides={"step": pl.Int64, **dict.fromkeys(_RECORDS, pl.Float64)}).lazy(),
        replace(FACTS, parameters=x.shape[1], references=tuple(named), **facts),
    )


def _path_schema(block: pl.Enum) -> dict[str, Any]:
    return {"step": pl.Int64, "block": block, **dict.fromkeys(PATH, pl.Float64)}


def _pair(problem: Problem, pairing: str, t: int, x: Array, z: Array, to: Array, since: Array) -> Row:
    d, gx, gy = to - since, problem.grad(to, z), problem.grad(since, z)
    dg = gx - gy
    return {
        "pairing": pairing,
        "step": t,
        "block": MODEL,
        "loss_x": problem.f(to, z),
        "loss_y": problem.f(since, z),
        "d_d": d @ d,
        "gx_d": gx @ d,
        "gy_d": gy @ d,
        "dg_d": dg @ d,
        "dg_dg": dg @ dg,
        "gx_gx": gx @ gx,
        "gy_gy": gy @ gy,
        "gx_gy": gx @ gy,
        "d_norms": np.linalg.norm(d),
        "dg_norms": np.linalg.norm(dg),
        "d_ahead": d @ (x[t + 1] - x[t]) if pairing.startswith(REFERENCE) else None,
        "y_y": since @ since if pairing.startswith(REFERENCE) else None,
    }


def _record(problem: Problem, t: int, x: Array, z: Array, lr: float) -> Row:
    return {
        "step": t,
        "loss": problem.f(x[t], z),
        "loss_previous": problem.f(x[t - 1], z) if t else None,
        "loss_next": problem.f(x[t + 1], z),
        "lr": lr,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "clip_factor": 1.0,
    }


def _path(problem: Problem, x: Array, z: Sequence[Array], halves: Any) -> list[Row]:
    rows, total, moved = [], np.zeros(x.shape[1]), 0.0
    for t, batch in enumerate(z):
        g, step = problem.grad(x[t], batch), x[t + 1] - x[t]
        total, moved = total + g, moved + g @ (x[t] - x[0])
        row = {"step": t, "block": MODEL, "x_x": x[t] @ x[t], "g_x": g @ x[t], "g_sum": np.abs(g).sum()}
        row |= {"x_d": x[t] @ (x[t] - x[t - 1])} if t else {}
        row |= {"step_step": step @ step, "gsum_gsum": total @ total, "gmove": moved}
        if halves is not None:
            a, b = halves(x[t], batch)
            row |= {"ga_gb": a @ b, "ga_ga": a @ a, "gb_gb": b @ b}
        rows.append(row)
    return rows
