"""How long all metrics and their verdicts take on the tables of a run, beside a plain scan of the same tables."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from analysis.columns import COLUMNS, GEOMETRY, PATH
from analysis.measure import Measurement, measure, measure_all
from analysis.registry import metrics
from analysis.tables import MODEL, REFERENCE, Facts, Tables, TableStore, pairing_type
from analysis.vectors.references import REFERENCES
from tests.benchmarks.measure import Session, at_most, timed
from tests.memory import STATUS, peak

ROUNDS = 3
SHAPES = ((4_000, 30, 3.0, 0.05, 0.2), (100_000, 100, 20.0, 3.0, 3.0))
"""Steps, blocks, seconds for all metrics, for one, and for the windows and blocks of one."""
MEMORY = 4.0  # GiB
ONE = "convexity_gap"
WIDE = "smoothness"  # with windows and a claim on every tensor
PART_ROWS = 1 << 20
CHILD = "--child"


def run(session: Session) -> None:
    """Every shape: a small run, and one as large as the tables are meant for."""
    for steps, blocks, *seconds in ((300, 2, 3.0, 0.05, 0.1),) if session.quick else SHAPES:
        all_seconds, one_seconds, tensor_seconds = seconds
        folder = session.folder / f"metrics-{steps}"
        tables = made(folder, steps, blocks)
        everything = list(metrics().values())
        one, wide = metrics()[ONE], measure(metrics()[WIDE], tables)
        contenders = {
            "all": timed(lambda tables=tables, everything=everything: measure_all(everything, tables)),
            "one": timed(lambda tables=tables, one=one: measure(one, tables)),
            "tensors": timed(lambda wide=wide: _tensors(wide)),
            "scan": timed(lambda tables=tables: _scan(tables)),
        }
        setting = f"{steps:,} steps, {blocks} blocks, {len(REFERENCES)} references"
        found = session.take_turns(f"metrics, {setting}", contenders, session.rounds(ROUNDS))
        name = f"all {len(everything)} metrics and verdicts"
        session.add("metrics", setting, name, found["all"], at_most(all_seconds), " s")
        session.add(
            "metrics", setting, f"one metric and its verdicts ({ONE})", found["one"], at_most(one_seconds), " s"
        )
        what = f"windows and blocks of one metric ({WIDE})"
        session.add("metrics", setting, what, found["tensors"], at_most(tensor_seconds), " s")
        session.add(
            "metrics", setting, f"{name} / the sum of every column of both tables", found["all"] / found["scan"]
        )
        memory = _memory_of_a_process(folder)
        session.add("metrics", setting, f"{name}: memory of a process of its own", [memory], at_most(MEMORY), " GiB")


def _tensors(measured: Measurement) -> None:
    again = replace(measured)  # a measurement keeps what it was asked for
    assert len(again.windows) > len(again.blocks) > 0


def made(folder: Path, steps: int, blocks: int) -> Tables:
    """Tables of a run that never was: every column, every block along the steps, and seven references."""
    store = TableStore(folder, "run")
    names = tuple(f"layer.{i}.weight" for i in range(blocks))
    block = pl.Enum([MODEL, *names])
    pairings = pairing_type(REFERENCES)
    wide = ("previous", f"{REFERENCE}last")  # as without a look-ahead probe
    random = np.random.default_rng(0)

    def parts(columns: tuple[str, ...], width: int) -> Iterator[pl.DataFrame]:
        at_once = max(1, PART_ROWS // width)
        for first in range(0, steps, at_once):
            step = np.arange(first, min(first + at_once, steps))
            n = len(step) * width
            rows = {name: _column(name, n, random) for name in columns}
            named = pl.Series(list(block.categories[:width]) * len(step), dtype=block)
            keys = {"step": np.repeat(step, width), "block": named}
            yield pl.DataFrame({**keys, **rows})

    def whole(name: str, found: Iterator[pl.DataFrame]) -> None:
        files = []
        for i, part in enumerate(found):
            files.append(folder / f"part-{i}.parquet")
            part.write_parquet(files[-1], compression="lz4")
        store.write(name, pl.concat([pl.scan_parquet(f) for f in files]))
        for file in files:
            file.unlink()

    folder.mkdir(parents=True, exist_ok=True)
    whole(
        "geometry",
        (
            part.select(pl.lit(pairing, pairings).alias("pairing"), pl.all()).with_columns(
                pl.when(pl.col("block") == MODEL).then(name).alias(name) for name in ("loss_x", "loss_y")
            )
            for pairing in pairings.categories
            for part in parts(GEOMETRY, 1 + blocks if pairing in wide else 1)
        ),
    )
    whole("path", parts(PATH, 1 + blocks))
    whole("steps", (_records(part) for part in parts(("loss", "loss_previous", "loss_next"), 1)))
    store.write_facts(
        Facts("run", "0", 1_000_000, "float32", "float32", "torch.optim.sgd.SGD", True, names, REFERENCES)
    )
    return store.tables()


def _records(part: pl.DataFrame) -> pl.DataFrame:
    constants = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "clip_factor": 1.0, "random_scale": 1.0}
    numbers = [pl.lit(value, pl.Float64).alias(name) for name, value in constants.items()]
    return part.drop("block").with_columns(*numbers, epoch=pl.col("step") // 1000, time_ns=pl.col("step"))


def _column(name: str, n: int, random: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Slopes of either sign, squares and losses above 0; digits as a disk would see them."""
    drawn = random.standard_normal(n)
    signed = ("_d" in name and name not in ("d_d", "dprev_dprev")) or name in (
        "g_x",
        "gx_gy",
        "g_gprev",
        "ga_gb",
        "gmove",
    )
    return 0.2 * drawn + 0.1 if signed else np.exp(0.3 * drawn)


def _scan(tables: Tables) -> list[pl.DataFrame]:
    numbers = [pl.col(name).sum() for name in COLUMNS]
    return pl.collect_all(
        table.select(n for n in numbers if n.meta.output_name() in table.collect_schema())
        for table in (tables.geometry, tables.path)
    )


def _memory_of_a_process(folder: Path) -> float:
    command = [sys.executable, "-m", "tests.benchmarks.bench_metrics", CHILD, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)["memory"])


def _child(folder: Path) -> None:
    begin = time.perf_counter()
    measure_all(metrics().values(), TableStore(folder, "run").tables())
    # getrusage would count what the process that started this one had
    used = peak() if STATUS.exists() else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": time.perf_counter() - begin, "memory": used / 2**30}))


if __name__ == "__main__" and sys.argv[1:2] == [CHILD]:
    _child(Path(sys.argv[2]))
