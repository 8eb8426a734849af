"""A walk through the real path: a torch parameter, the tracer, files, the geometry. What tests say by hand, for real.

The loss and its gradient are a problem's own, called from torch; the optimizer goes where the walk went.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from analysis.geometry import geometry
from analysis.tables import REFERENCE, Tables, pairing_type
from tests.problems import Array, Problem
from tracer import Tracer
from tracer.store import Trace


def _evaluated(f: Callable[[Array], float], grad: Callable[[Array], Array]) -> Callable[[torch.Tensor], torch.Tensor]:
    class Evaluated(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, w: torch.Tensor) -> torch.Tensor:
            ctx.at = w.detach().numpy().copy()
            return torch.tensor(float(f(ctx.at)), dtype=torch.float64)

        @staticmethod
        def backward(ctx: Any, weight: torch.Tensor) -> torch.Tensor:
            return torch.tensor(np.asarray(grad(ctx.at), float)) * weight

    return Evaluated.apply


class _Prescribed(torch.optim.Optimizer):
    """Goes to the points it is given; its groups say what the walk's rule was."""

    def __init__(self, parameters: Any, points: Array, **group: Any) -> None:
        super().__init__(parameters, group)
        self.points, self.t = torch.tensor(points), 0

    def step(self) -> None:  # type: ignore[override]
        self.t += 1
        with torch.no_grad():
            self.param_groups[0]["params"][0].copy_(self.points[self.t])


SGD = type("SGD", (_Prescribed,), {"__module__": "torch.optim.sgd"})


MOST = 300
"""Steps of the longest walk that tests take through files by default; LEMMATA_REAL_PATH_STEPS lifts it."""
_folder: Path | None = None


@contextmanager
def taken(folder: Path | None) -> Iterator[None]:
    """Inside, :func:`through` takes walks through files in ``folder``; None leaves everything in memory."""
    global _folder
    before, _folder = _folder, folder
    try:
        yield
    finally:
        _folder = before


def wanted(steps: int) -> bool:
    """Whether a walk of so many steps goes through files now."""
    return _folder is not None and steps <= int(os.environ.get("LEMMATA_REAL_PATH_STEPS", MOST))


def through(*walk: Any, **given: Any) -> Tables:
    """:func:`recorded`, in a folder of its own."""
    assert _folder is not None
    with tempfile.TemporaryDirectory(dir=_folder) as folder:
        tables = recorded(Path(folder), *walk, **given)
        frames = (frame.collect().lazy() for frame in (tables.geometry, tables.path, tables.steps))
        return Tables(*frames, tables.facts)


class _Point(torch.nn.Module):
    def __init__(self, start: Array) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(start))


def recorded(
    folder: Path,
    problem: Problem,
    x: Array,
    z: Sequence[Array],
    records: dict[str, Sequence[Any]],
    halves: Callable[[Array, Array], tuple[Array, Array]] | None = None,
    references: dict[str, Array] | None = None,
    **facts: Any,
) -> Tables:
    """Tables of the run that goes through ``x``, shape ``(n + 1, p)``, on minibatches ``z``, read back from its files.

    Args:
        records: n values each: ``lr``, ``momentum``, ``weight_decay`` and ``random_scale`` are recorded as such, what
            else there is is put into the table of steps as it is.
        references: points beside those of the run; losses and gradients there are what a replay would have found.
    """
    model = _Point(x[0])
    rule = {k: records[k][0] for k in ("lr", "momentum", "weight_decay") if k in records}
    flags = {"nesterov": False, "maximize": False, "foreach": None, "differentiable": False, "fused": None}
    optimizer = SGD([model.w], x, dampening=0, **flags, **rule)
    probes = ["look_back", "look_ahead", *(["half_batches"] if halves else [])]
    with Tracer(
        folder / "run", model, optimizer, probes=probes, changed_updates="record", chunk_bytes=1 << 16
    ) as tracer:
        for t, batch in enumerate(z):
            optimizer.zero_grad()
            optimizer.param_groups[0].update({k: records[k][t] for k in rule})
            loss = _evaluated(
                lambda at, batch=batch: problem.f(at, batch), lambda at, batch=batch: problem.grad(at, batch)
            )
            both: Any = None
            if halves is not None:
                both = tuple(
                    lambda half=half: _evaluated(lambda at: 0.0, lambda at: half)(model.w)
                    for half in halves(x[t], batch)
                )
            scale = records.get("random_scale", [None] * len(z))[t]
            given = {} if scale is None else {"random_scale": float(scale)}
            if "epoch" in records:
                given["epoch"] = int(records["epoch"][t])
            tracer.loss(lambda loss=loss: loss(model.w), halves=both, batch=t, **given).backward()
            optimizer.step()
    named = {} if references is None else {n: np.atleast_1d(np.asarray(r, float)) for n, r in references.items()}
    for name, point in named.items():
        np.save(folder / f"{name}.npy", point)
    tables = geometry(Trace(folder / "run"), references=[f"point:{folder / name}.npy" for name in named])
    known = set(tables.steps.collect_schema())
    rest = {k: list(v) for k, v in records.items() if k not in known or k == "clip_factor"}
    # the closing row, which holds the last point alone, has no place in tables made by hand
    steps = tables.steps.head(len(z)).with_columns(pl.Series(k, v, strict=False) for k, v in rest.items())
    found = _with_losses(tables.geometry.collect(), problem, x, z, named)
    path = tables.path.filter(pl.col("step") < len(z))
    return Tables(found.lazy(), path, steps, replace(tables.facts, references=tuple(named), **facts))


def _with_losses(table: pl.DataFrame, problem: Problem, x: Array, z: Sequence[Array], named: dict[str, Array]) -> Any:
    """Reference pairs under their short names, with what a replay finds at them."""
    name = pl.col("pairing").cast(pl.String)
    table = table.with_columns(name.str.replace(f"^{REFERENCE}point:", REFERENCE).alias("pairing"))
    rows = []
    for reference, at in named.items():
        for t, batch in enumerate(z):
            e, g, gy = x[t] - at, problem.grad(x[t], batch), problem.grad(at, batch)
            dg = g - gy
            products = gy @ e, dg @ e, dg @ dg, gy @ gy, g @ gy, np.linalg.norm(dg)
            rows.append((f"{REFERENCE}{reference}", t, problem.f(at, batch), *products))
    columns = ("pairing", "step", "loss_y", "gy_d", "dg_d", "dg_dg", "gy_gy", "gx_gy", "dg_norms")
    replayed = pl.DataFrame(rows, schema=columns, orient="row") if rows else pl.DataFrame(
        schema={c: pl.String if c == "pairing" else pl.Int64 if c == "step" else pl.Float64 for c in columns}
    )  # fmt: skip
    joined = table.join(replayed, on=["pairing", "step"], how="left", suffix=" replayed", maintain_order="left")
    whole = pl.col("block").cast(pl.String) == "model"
    joined = joined.with_columns(
        pl.when(whole & pl.col(f"{c} replayed").is_not_null()).then(f"{c} replayed").otherwise(c).alias(c)
        for c in columns[2:]
    )
    return joined.select(table.columns).cast({"pairing": pairing_type(tuple(named))})
