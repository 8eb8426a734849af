"""Walks on known losses and what every table says of them, in plain numpy: fresh and in-sample pairs, paths, records."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from analysis.columns import GEOMETRY, PATH
from analysis.tables import MODEL, Tables, pairing_type
from tests.problems import Array, Problem
from tests.tables_by_hand import FACTS

WINDOW = 100


@dataclass(frozen=True)
class Walk:
    """``n`` steps: points ``x`` of shape ``(n + 1, p)``, minibatches, buffers ``m`` of shape ``(n, p)``, records."""

    problem: Problem
    x: Array
    z: list[Array]
    m: Array
    records: dict[str, Any]
    halves: Callable[[Array, Array], tuple[Array, Array]] | None = None


def walk(
    problem: Problem,
    lr: float,
    steps: int,
    momentum: float = 0.0,
    scale: Callable[[np.random.Generator], float] | None = None,
    seed: int = 0,
    draw: Callable[[int], Array] | None = None,
    halves: Callable[[Array, Array], tuple[Array, Array]] | None = None,
    **records: Any,
) -> Walk:
    """Gradient descent with torch's momentum; each step is multiplied by a draw of ``scale``, if that is given.

    ``draw`` gives the minibatch of a step by its number instead of at random.
    """
    random = np.random.default_rng(seed)
    x, z, m = [problem.start.copy()], [], [np.zeros_like(problem.start)]
    scales = [None if scale is None else scale(random) for _ in range(steps)]
    for t in range(steps):
        z.append(problem.draw(random) if draw is None else draw(t))
        m.append(momentum * m[-1] + problem.grad(x[-1], z[-1]))
        factor = scales[t]
        x.append(x[-1] - lr * (1.0 if factor is None else factor) * m[-1])
    known = {"lr": lr, "momentum": momentum, "weight_decay": 0.0, "clip_factor": 1.0, "random_scale": scales, **records}
    return Walk(problem, np.array(x), z, np.array(m[1:]), known, halves)


def along(points: Any, f: Callable[[Array], float], grad: Callable[[Array], Array]) -> Walk:
    """Given points, shape ``(n + 1,)``, of a loss without minibatches."""
    x = np.asarray(points, dtype=float)[:, None]
    problem = Problem(f=lambda at, _: float(f(at[0])), grad=lambda at, _: np.atleast_1d(grad(at[0])), start=x[0])
    return Walk(problem, x, [np.zeros(0)] * (len(x) - 1), np.full_like(x[1:], np.nan), {"lr": 1.0})


def isotropic(h: float, size: int, noise: float = 0.0, start: float = 0.0) -> Problem:
    """``h‖x‖²/2 + ⟨z, x⟩``, z the mean of two halves: minibatch gradients have variance ``noise²`` per coordinate."""
    return Problem(
        f=lambda x, z: float(h * x @ x / 2 + z.reshape(2, -1).mean(0) @ x),
        grad=lambda x, z: h * x + z.reshape(2, -1).mean(0),
        start=np.full(size, start),
        draw=lambda random: random.normal(size=2 * size) * noise * np.sqrt(2),
    )


def halves_of(h: float) -> Callable[[Array, Array], tuple[Array, Array]]:
    """Gradients of the two halves of a minibatch of :func:`isotropic`."""
    return lambda x, z: (h * x + z[: len(x)], h * x + z[len(x) :])


def tables_of(w: Walk, pairings: tuple[str, ...] = ("previous", "next"), **facts: Any) -> Tables:
    """Tables of the whole model."""
    n, block = len(w.z), pl.Enum([MODEL])
    rows = [_pair(w, "previous", t, w.x[t], w.x[t - 1]) for t in range(1, n) if "previous" in pairings]
    rows += [_pair(w, "next", t, w.x[t + 1], w.x[t]) for t in range(n) if "next" in pairings]
    geometry = {"pairing": pairing_type(()), "step": pl.Int64, "block": block, **dict.fromkeys(GEOMETRY, pl.Float64)}
    path = {"step": pl.Int64, "block": block, **dict.fromkeys(PATH, pl.Float64)}
    losses = {
        "loss": [w.problem.f(w.x[t], w.z[t]) for t in range(n)],
        "loss_previous": [w.problem.f(w.x[t - 1], w.z[t]) if t else None for t in range(n)],
        "loss_next": [w.problem.f(w.x[t + 1], w.z[t]) for t in range(n)],
    }
    several = {k: v if isinstance(v, list) else [v] * n for k, v in w.records.items()}
    records = pl.DataFrame({"step": np.arange(n), **losses, **several}, strict=False)
    return Tables(
        pl.DataFrame(rows, schema=geometry).lazy(),
        pl.DataFrame(_path(w), schema=path).lazy(),
        records.with_columns(pl.col(name).cast(pl.Float64) for name in ({*losses, *several} - {"epoch"})).lazy(),
        replace(FACTS, parameters=w.x.shape[1], **facts),
    )


def _pair(w: Walk, pairing: str, t: int, x: Array, y: Array) -> dict[str, Any]:
    f, grad, z = w.problem.f, w.problem.grad, w.z[t]
    d, gx, gy = x - y, grad(x, z), grad(y, z)
    dg = gx - gy
    products = {"d_d": d @ d, "gx_d": gx @ d, "gy_d": gy @ d, "dg_d": dg @ d, "dg_dg": dg @ dg}
    products |= {"gx_gx": gx @ gx, "gy_gy": gy @ gy, "gx_gy": gx @ gy}
    norms = {"d_norms": np.sqrt(d @ d), "dg_norms": np.sqrt(dg @ dg)}
    keys = {"pairing": pairing, "step": t, "block": MODEL}
    return {**keys, "loss_x": f(x, z), "loss_y": f(y, z), **products, **norms}


def _path(w: Walk) -> list[dict[str, Any]]:
    rows = []
    total, window = np.zeros_like(w.x[0]), np.zeros_like(w.x[0])
    before: Array | None = None
    for t, z in enumerate(w.z):
        g, x = w.problem.grad(w.x[t], z), w.x[t]
        window = g if t % WINDOW == 0 else window + g
        total = total + g
        row = {"step": t, "block": MODEL, "g_sum": np.abs(g).sum(), "gsum_gsum": total @ total}
        row |= {"wsum_wsum": window @ window, "wcount": t % WINDOW + 1, "m_m": w.m[t] @ w.m[t], "g_m": g @ w.m[t]}
        moved = x - w.x[t - t % WINDOW]
        row["wmove_wmove"] = moved @ moved
        if before is not None:
            d, dg = x - w.x[t - 1], g - w.problem.grad(w.x[t - 1], z)
            row |= {"g_gprev": g @ before, "gprev_gprev": before @ before, "g_mprev": g @ w.m[t - 1]}
            row |= {"d_max": np.abs(d).max(), "dg_sum": np.abs(dg).sum()}
            if t > 1:
                last = w.x[t - 1] - w.x[t - 2]
                row |= {"d_dprev": d @ last, "dprev_dprev": last @ last}
        if w.halves is not None:
            a, b = w.halves(x, z)
            row |= {"ga_gb": a @ b, "ga_ga": a @ a, "gb_gb": b @ b}
        rows.append(row)
        before = g
    return rows
