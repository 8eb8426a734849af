"""Runs that numpy made, written as the tracer would, so that they go the whole way: files, geometry, checks, proofs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from analysis.replay import with_replay
from analysis.tables import MODEL, REFERENCE, Tables
from tests.problems import Array, Problem, Run
from tracer.store.manifest import Block, Manifest
from tracer.store.run_writer import RunWriter

SGD = {"lr": 0.1, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0}


def write(
    path: Path,
    run: Run,
    sizes: Sequence[int] | None = None,
    settings: Mapping[str, float] | None = None,
    record: Sequence[Mapping[str, Any]] | None = None,
    optimizer: str = "torch.optim.sgd.SGD",
    flags: Mapping[str, bool] | None = None,
    halves: tuple[Array, Array] | None = None,
    promised: bool = True,
    **fields: Any,
) -> None:
    """Write ``run`` with its closing point; ``record`` adds columns to each step's record, ``fields`` to the manifest.

    ``settings`` are the optimizer's numbers, ``lr`` that of the run; ``promised``: that only updates change the points.
    """
    n, d = run.x.shape
    sizes = sizes or [d]
    edges = np.cumsum([0, *sizes]).tolist()
    blocks = tuple(Block(f"w{i}", (s,), "float64", edges[i], s) for i, s in enumerate(sizes))
    numbers = {**SGD, **(settings or {})} if optimizer.endswith("SGD") else dict(settings or {}) | {"lr": 0.0}
    group = {"parameters": d, "blocks": [b.name for b in blocks], **(flags or {})}
    streams = {"x": run.x, "g": run.g, "h": run.h}
    if halves is not None:
        streams |= {"ga": halves[0], "gb": halves[1]}
    manifest = Manifest(
        path.name,
        "2026-01-01T00:00:00+00:00",
        blocks,
        tuple(streams),
        "float64",
        tuple(f"group0.{name}" for name in numbers),
        loss_dtype="float64",
        optimizer={"class": optimizer, "groups": [group], **({"changed_updates": "error"} if promised else {})},
        **fields,
    )
    writer = RunWriter(path, manifest)
    for t in range(n):
        rows = {name: np.ascontiguousarray(v[t]) for name, v in streams.items() if name != "h" or t}
        of_step = {"time_ns": t, "finite": True, "loss": run.loss[t], **(record[t] if record else {})}
        if t:
            of_step["loss_previous"] = run.loss_previous[t]
        of_step |= {f"hyper:group0.{name}": float(value) for name, value in numbers.items()}
        writer.append(t, of_step | {"hyper:group0.lr": float(run.lr[t])}, rows)
    if run.final is not None:
        writer.append(n, {"time_ns": n, "finite": True}, {"x": run.final})
    writer.close("finished")


def with_losses_at(tables: Tables, problem: Problem, points: Mapping[str, Array], seed: int = 0) -> Tables:
    """The tables with f(u, z_t) for each reference point u, as evaluating the minibatches again would give them."""
    random = np.random.default_rng(seed)
    steps = tables.steps.select("step", "loss").collect().drop_nulls()["step"].to_list()
    drawn = [problem.draw(random) for _ in steps]
    replay = pl.DataFrame(
        {
            "pairing": [REFERENCE + name for name in points for _ in steps],
            "step": steps * len(points),
            "loss_y": [problem.f(u, z) for u in points.values() for z in drawn],
        },
        schema_overrides={"loss_y": pl.Float64, "step": pl.Int64},
    )
    return Tables(with_replay(tables.geometry, replay.lazy(), MODEL), tables.path, tables.steps, tables.facts)
