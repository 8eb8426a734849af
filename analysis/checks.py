"""Is the trace sound enough to be interpreted? Exact identities that must vanish to rounding, and what looks odd.

An identity that fails means broken data, never a finding about the loss. Its tolerance is ``50 u √d`` times the
magnitude of its terms, with ``u = 2⁻⁵³`` (the kernel sums in double precision) and ``d`` the number of parameters:
rounding errors of a sum of ``d`` products stay below ``λ √d u`` times its magnitude with probability at least
``1 − 2 exp(−λ²/2)`` if they are independent with mean zero (Higham, Mary 2019), here λ = 50, and below the worst case
``d u`` for every ``d`` up to 2500. A single wrong bit of a float32 number in a trace is 10⁻⁷, far above it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import polars as pl

from analysis.columns import d_d, dg_d, dg_dg, gx_d, gx_gx, gx_gy, gy_d, gy_gy, loss_x, loss_y, x_d, x_x
from analysis.metrics.convexity_gap import metric as convexity_gap
from analysis.metrics.update_correlation import metric as update_correlation
from analysis.rounding import ROUNDOFF
from analysis.tables import MODEL, Tables

Number = float | int | str


@dataclass(frozen=True)
class CheckResult:
    """One check of one trace.

    Args:
        name: short name.
        passed: whether it holds; False with severity "warn" where nothing could be tested.
        severity: "error" for broken data, "warn" for something to look at.
        description: what was tested and found, in words.
        numbers: rows tested, worst residual in tolerances, its step and block, and the like.
    """

    name: str
    passed: bool
    severity: Literal["error", "warn"]
    description: str
    numbers: dict[str, Number]


@dataclass(frozen=True, eq=False)
class _Identity:
    """``residual`` must not exceed ``50 u`` times ``magnitude``, times √d where it compares sums over coordinates."""

    name: str
    says: str
    residual: pl.Expr
    magnitude: pl.Expr
    sums: bool = True


_x_x_before = pl.col("x_x before")
_geometry = (
    _Identity(
        "polarisation of gradients",
        "‖gx − gy‖² = ‖gx‖² + ‖gy‖² − 2⟨gx, gy⟩",
        (dg_dg - (gx_gx + gy_gy - 2 * gx_gy)).abs(),
        dg_dg + gx_gx + gy_gy + 2 * gx_gy.abs(),
    ),
    _Identity(
        "slopes of a pair",
        "⟨gx − gy, d⟩ = ⟨gx, d⟩ − ⟨gy, d⟩",
        (dg_d - (gx_d - gy_d)).abs(),
        (gx_gx * d_d).sqrt() + (gy_gy * d_d).sqrt(),
    ),
    _Identity("Cauchy-Schwarz for gx and d", "⟨gx, d⟩² ≤ ‖gx‖² ‖d‖²", gx_d**2 - gx_gx * d_d, gx_gx * d_d),
    _Identity(
        "Cauchy-Schwarz for gx − gy and d", "⟨gx − gy, d⟩² ≤ ‖gx − gy‖² ‖d‖²", dg_d**2 - dg_dg * d_d, dg_dg * d_d
    ),
    _Identity("Cauchy-Schwarz for gx and gy", "⟨gx, gy⟩² ≤ ‖gx‖² ‖gy‖²", gx_gy**2 - gx_gx * gy_gy, gx_gx * gy_gy),
    _Identity(
        "update correlation is loss change minus convexity gap",
        "⟨gx, d⟩ = (f(x) − f(y)) − gap",
        (update_correlation.value - ((loss_x - loss_y) - convexity_gap.value)).abs(),
        loss_x.abs() + loss_y.abs() + gx_d.abs(),
        sums=False,
    ),
)
_path = _Identity(
    "polarisation of points",
    "‖x_{t−1}‖² = ‖x_t‖² − 2⟨x_t, d⟩ + ‖d‖², against the row before",
    (x_x - 2 * x_d + d_d - _x_x_before).abs(),
    x_x + 2 * x_d.abs() + d_d + _x_x_before,
)
_ADDITIVE = {
    # the scale of a sum that may cancel inside a block is that of its two factors
    **{name: pl.col(name) for name in ("d_d", "dg_dg", "gx_gx", "gy_gy")},
    "gx_d": (gx_gx * d_d).sqrt(),
    "gy_d": (gy_gy * d_d).sqrt(),
    "dg_d": (dg_dg * d_d).sqrt(),
    "gx_gy": (gx_gx * gy_gy).sqrt(),
}


def trace_checks(tables: Tables) -> list[CheckResult]:
    """Every check of one trace, the exact identities first."""
    tolerance = 50 * ROUNDOFF["float64"]
    many = tolerance * math.sqrt(max(tables.facts.parameters, 1))
    results = [_identity(each, tables.geometry, many if each.sums else tolerance) for each in _geometry]
    results.append(_identity(_path, _consecutive(tables), many))
    results.append(_identity(_sum_of_blocks, _blocks_and_model(tables.geometry), many))
    return [*results, *_oddities(tables)]


_sum_of_blocks = _Identity(
    "blocks add up to the model",
    f"the sum over blocks is the model's row, for {', '.join(_ADDITIVE)}",
    pl.col("residual"),
    pl.col("magnitude"),
)


IDENTITIES: tuple[tuple[str, str], ...] = tuple((i.name, i.says) for i in (*_geometry, _path, _sum_of_blocks))
"""Name and statement of each exact identity; a trace that breaks one is broken data."""

ODDITIES: tuple[tuple[str, str], ...] = (
    ("finite", "Every recorded number is finite."),
    ("no gaps", "No step between the first and the last is left out."),
)
"""Name and statement of each check whose failure is a finding about the run."""


def _identity(identity: _Identity, rows: pl.LazyFrame, tolerance: float) -> CheckResult:
    allowed = tolerance * identity.magnitude
    # a residual where every term is zero is infinitely many tolerances
    nothing = pl.when(identity.residual > 0).then(math.inf).otherwise(0.0)
    tested = (
        # what is missing or undefined is no broken identity; the check "finite" reports it
        rows.filter(identity.residual.is_finite() & identity.magnitude.is_finite())
        .with_columns(worst=pl.when(identity.magnitude > 0).then(identity.residual / allowed).otherwise(nothing))
        .select("pairing", "step", pl.col("block").cast(pl.String), "worst")
    )
    first = tested.filter(pl.col("worst") == pl.col("worst").max()).head(1)
    counts = tested.select(rows=pl.len(), failed=(pl.col("worst") > 1).sum())
    count, worst = pl.collect_all([counts, first])
    n, failed = count.row(0)
    if n == 0:
        return CheckResult(
            identity.name, False, "warn", f"{identity.says}: not tested, there are no such rows", {"rows": 0}
        )
    at = worst.row(0, named=True)
    numbers: dict[str, Number] = {
        "rows": n,
        "rows_failed": failed,
        "worst_in_tolerances": max(at["worst"], 0.0),
        "step": at["step"],
        "block": at["block"],
        "pairing": str(at["pairing"]),
        "relative_tolerance": tolerance,
    }
    if failed:
        found = (
            f"{failed} of {n} rows break it, worst at step {at['step']}, block {at['block']}: {at['worst']:.3g} times "
            "the tolerance. The data are broken; record the run again or restore it from a sound copy"
        )
        return CheckResult(identity.name, False, "error", f"{identity.says}: {found}", numbers)
    return CheckResult(identity.name, True, "error", f"{identity.says}: holds in {n} rows to rounding", numbers)


def _consecutive(tables: Tables) -> pl.LazyFrame:
    """Each row of the path with |x|² of the step before and the pair's |d|²."""
    keys = ["step", "block"]
    before = tables.path.select(pl.col("step") + 1, "block", pl.col("x_x").alias("x_x before"))
    steps = tables.geometry.filter(pl.col("pairing").cast(pl.String) == "previous").select("pairing", *keys, "d_d")
    return (
        tables.path.select(*keys, "x_x", "x_d")
        .join(before, on=keys, maintain_order="left")
        .join(steps, on=keys, maintain_order="left")
    )


def _blocks_and_model(geometry: pl.LazyFrame) -> pl.LazyFrame:
    """One row per pairing, step and column: how far the sum of the blocks is from the model."""
    block = pl.col("block").cast(pl.String)
    keys = ["pairing", "step"]
    scales = geometry.with_columns(scale.alias(f"scale {name}") for name, scale in _ADDITIVE.items())
    names = [*_ADDITIVE, *(f"scale {name}" for name in _ADDITIVE)]
    model = scales.filter(block == MODEL).select(*keys, *names)
    parts = scales.filter(block != MODEL).group_by(keys, maintain_order=True)
    # a sum skips nulls: a block that is missing where the model is not must not count as zero
    whole = parts.agg(pl.when(pl.col(name).null_count() == 0).then(pl.col(name).sum()) for name in names)
    # pairings that are known for the model alone have no sum
    joined = model.join(whole, on=keys, how="inner", suffix=" of blocks", maintain_order="left")
    return pl.concat([_one_sum(joined, name) for name in _ADDITIVE])


def _one_sum(joined: pl.LazyFrame, name: str) -> pl.LazyFrame:
    model, blocks = pl.col(name), pl.col(f"{name} of blocks")
    one_sided = model.is_finite().fill_null(False) != blocks.is_finite().fill_null(False)
    magnitude = pl.col(f"scale {name}") + pl.col(f"scale {name} of blocks")
    return joined.select(
        "pairing",
        "step",
        pl.lit(f"{MODEL} ({name})").alias("block"),
        residual=pl.when(one_sided).then(1.0).otherwise((model - blocks).abs()),
        magnitude=pl.when(one_sided).then(0.0).otherwise(magnitude),
    )


def _oddities(tables: Tables) -> Iterator[CheckResult]:
    yield _finite(tables)
    yield _no_gaps(tables)


def _finite(tables: Tables) -> CheckResult:
    odd = ~pl.all_horizontal(pl.col(n).is_finite().fill_null(True) for n in (*_ADDITIVE, "loss_x", "loss_y"))
    pairs = tables.geometry.filter(pl.col("block").cast(pl.String) == MODEL).filter(odd).select("step")
    steps = tables.steps.filter(~pl.col("loss").cast(pl.Float64).is_finite().fill_null(True)).select("step")
    bad = pl.concat([pairs, steps]).unique().sort("step").collect()["step"]
    numbers: dict[str, Number] = {"steps_not_finite": len(bad)}
    if bad.is_empty():
        return CheckResult("finite", True, "warn", "every recorded number is finite", numbers)
    text = f"{len(bad)} steps have numbers that are NaN or infinite, the first at step {bad[0]}: the run diverged there"
    return CheckResult("finite", False, "warn", text, numbers | {"first_step": bad[0]})


def _no_gaps(tables: Tables) -> CheckResult:
    steps = tables.steps.select("step").sort("step").collect()["step"]
    if len(steps) < 2:
        found: dict[str, Number] = {"steps": len(steps)}
        return CheckResult("no gaps", False, "warn", f"{len(steps)} recorded steps: there is no pair to measure", found)
    stride = steps.diff().drop_nulls()
    after = steps.gather((stride != 1).arg_true())
    numbers: dict[str, Number] = {
        "steps": len(steps),
        "first_step": steps[0],
        "last_step": steps[-1],
        "gaps": len(after),
        "steps_left_out": int((stride - 1).sum()),
    }
    if after.is_empty():
        return CheckResult("no gaps", True, "warn", f"steps {steps[0]} to {steps[-1]} are all there", numbers)
    numbers |= {"first_gap_after_step": after[0], "largest_gap": max(stride.to_list())}
    text = (
        f"{len(after)} gaps leave out {numbers['steps_left_out']} steps, the first after step {after[0]}. No pair "
        "crosses a gap. With a plan that records every n-th step or bursts this is as planned; otherwise data are lost"
    )
    return CheckResult("no gaps", False, "warn", text, numbers)
