"""Identities of the geometry and path tables: what must fit together whatever the optimizer was."""

import polars as pl

from analysis.columns import d_d, dg_d, dg_dg, gx_d, gx_gx, gx_gy, gy_d, gy_gy, loss_x, loss_y, x_d, x_x
from analysis.metrics.convexity_gap import metric as convexity_gap
from analysis.metrics.update_correlation import metric as update_correlation
from analysis.soundness.identities import Identity, Part, cauchy_schwarz
from analysis.tables import MODEL, Tables

_c = pl.col


def _before(name: str) -> pl.Expr:
    return _c(f"{name} before")


def _correlation(product: pl.Expr, one: pl.Expr, other: pl.Expr) -> pl.Expr:
    return product / (one.sqrt() * other.sqrt())


_cosines = _correlation(gx_d, gx_gx, d_d), _correlation(gy_d, gy_gy, d_d), _correlation(gx_gy, gx_gx, gy_gy)
_determinant = 1 + 2 * _cosines[0] * _cosines[1] * _cosines[2] - sum((c**2 for c in _cosines), pl.lit(0.0))

PAIRS = (
    Identity(
        "polarisation of gradients",
        "‖gx − gy‖² = ‖gx‖² + ‖gy‖² − 2⟨gx, gy⟩",
        (
            Part(
                (dg_dg - (gx_gx + gy_gy - 2 * gx_gy)).abs(),
                dg_dg + gx_gx + gy_gy + 2 * gx_gy.abs(),
            ),
        ),
    ),
    Identity(
        "slopes of a pair",
        "⟨gx − gy, d⟩ = ⟨gx, d⟩ − ⟨gy, d⟩",
        (
            Part(
                (dg_d - (gx_d - gy_d)).abs(),
                (gx_gx * d_d).sqrt() + (gy_gy * d_d).sqrt(),
            ),
        ),
    ),
    Identity("Cauchy-Schwarz for gx and d", "⟨gx, d⟩² ≤ ‖gx‖² ‖d‖²", (cauchy_schwarz(gx_d, gx_gx, d_d),)),
    Identity("Cauchy-Schwarz for gy and d", "⟨gy, d⟩² ≤ ‖gy‖² ‖d‖²", (cauchy_schwarz(gy_d, gy_gy, d_d),)),
    Identity(
        "Cauchy-Schwarz for gx − gy and d", "⟨gx − gy, d⟩² ≤ ‖gx − gy‖² ‖d‖²", (cauchy_schwarz(dg_d, dg_dg, d_d),)
    ),
    Identity("Cauchy-Schwarz for gx and gy", "⟨gx, gy⟩² ≤ ‖gx‖² ‖gy‖²", (cauchy_schwarz(gx_gy, gx_gx, gy_gy),)),
    Identity(
        "Gram matrix of d, gx and gy",
        "the matrix of their cosines has no negative determinant",
        (Part(-_determinant, pl.lit(12.0)),),  # three cosines, each with a derivative of at most 4
    ),
    Identity(
        "update correlation is loss change minus convexity gap",
        "⟨gx, d⟩ = (f(x) − f(y)) − gap",
        (
            Part(
                (update_correlation.value - ((loss_x - loss_y) - convexity_gap.value)).abs(),
                loss_x.abs() + loss_y.abs() + gx_d.abs(),
                sums=False,
            ),
        ),
    ),
)
PATH = (
    Identity(
        "polarisation of points",
        "‖x_{t−1}‖² = ‖x_t‖² − 2⟨x_t, d⟩ + ‖d‖², against the row before",
        (Part((x_x - 2 * x_d + d_d - _before("x_x")).abs(), x_x + 2 * x_d.abs() + d_d + _before("x_x")),),
    ),
    Identity(
        "the step that leaves is the step that arrives",
        "‖x_{t+1} − x_t‖² of one row is ‖d‖² of the next",
        (Part((_before("step_step") - d_d).abs(), _before("step_step") + d_d),),
    ),
    Identity(
        "Cauchy-Schwarz along the path",
        "no inner product is larger than the product of the norms, for those of x, d, g and the moment m",
        (
            cauchy_schwarz(_c("g_x"), gx_gx, x_x, "g_x"),
            cauchy_schwarz(x_d, x_x, d_d, "x_d"),
            cauchy_schwarz(_c("g_gprev"), gx_gx, _before("gx_gx"), "g_gprev"),
            cauchy_schwarz(_c("d_dprev"), d_d, _before("d_d"), "d_dprev"),
            cauchy_schwarz(_c("ga_gb"), _c("ga_ga"), _c("gb_gb"), "ga_gb"),
            cauchy_schwarz(_c("g_m"), gx_gx, _c("m_m"), "g_m"),
            cauchy_schwarz(_c("g_mprev"), gx_gx, _before("m_m"), "g_mprev"),
        ),
    ),
)
_READS = (
    "x_x",
    "x_d",
    "step_step",
    "g_x",
    "g_gprev",
    "d_dprev",
    "ga_gb",
    "ga_ga",
    "gb_gb",
    "g_m",
    "g_mprev",
    "m_m",
)
_ADDITIVE = {
    # the scale of a sum that may cancel inside a block is that of its two factors
    **{name: pl.col(name) for name in ("d_d", "dg_dg", "gx_gx", "gy_gy")},
    "gx_d": (gx_gx * d_d).sqrt(),
    "gy_d": (gy_gy * d_d).sqrt(),
    "dg_d": (dg_dg * d_d).sqrt(),
    "gx_gy": (gx_gx * gy_gy).sqrt(),
}
SUM_OF_BLOCKS = Identity(
    "blocks add up to the model",
    f"the sum over blocks is the model's row, for {', '.join(_ADDITIVE)}",
    (Part(_c("residual"), _c("magnitude")),),
)


def own_products(tables: Tables) -> pl.LazyFrame:
    """All pairs but the unpaired of a run with the look-back probe: their differences are made of products that cancel,
    and no verdict looks at them.
    """
    if not tables.facts.has_look_back:
        return tables.geometry
    return tables.geometry.filter(_c("pairing").cast(pl.String) != "unpaired")


def along(tables: Tables) -> pl.LazyFrame:
    """Each row of the path with the numbers of its pair, and both of the step before."""
    keys = ["step", "block"]
    pairs = tables.geometry.filter(_c("pairing").cast(pl.String) == "previous").select("pairing", *keys, "d_d", "gx_gx")
    there = tables.path.collect_schema()
    named = (_c(n) if n in there else pl.lit(None, pl.Float64).alias(n) for n in _READS)
    rows = tables.path.select(*keys, *named).join(pairs, on=keys, how="left", maintain_order="left")
    names = ("x_x", "step_step", "m_m", "d_d", "gx_gx")
    width = 1 + len(tables.facts.blocks)
    same = (_c("block") == _c("block").shift(width)).fill_null(True)
    if tables.path.select(same.all()).collect().item():  # as geometry writes it: step by step, all blocks of each
        follows = _c("step").shift(width) == _c("step") - 1
        return rows.with_columns(pl.when(follows).then(_c(name).shift(width)).alias(f"{name} before") for name in names)
    before = rows.select(_c("step") + 1, "block", *(_c(name).alias(f"{name} before") for name in names))
    return rows.join(before, on=keys, how="left", maintain_order="left")


def blocks_and_model(geometry: pl.LazyFrame) -> pl.LazyFrame:
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
    summed = scales.filter(block != MODEL).select("pairing").unique()
    joined = model.join(summed, on="pairing", how="semi", maintain_order="left").join(
        whole, on=keys, how="left", suffix=" of blocks", maintain_order="left"
    )
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
