"""Tables of a replay as columns beside the pairs they belong to, one number per pairing, step and block.

What was found at x_t or along the step from x_{t−1} to x_t stands at the pair ``previous`` of step t, a window at its
last step, what was found at a reference point beside the pair with it. Tables that are not complete are left out.
"""

from collections.abc import Callable, Collection, Mapping

import polars as pl

from analysis.columns import AT_REFERENCE, MODEL, REPLAY
from analysis.replayed import Replayed

KEYS = ("pairing", "step", "block")
PREVIOUS = "previous"
_Made = Callable[[Replayed], list[pl.LazyFrame]]


def depends_on_replay(columns: Collection[str], pairings: Collection[str]) -> bool:
    """Whether a formula over ``columns``, for these kinds of pairings, may say something else after a replay."""
    at_reference = "reference" in pairings and not AT_REFERENCE.isdisjoint(columns)
    return at_reference or not {*REPLAY, "sigma_f"}.isdisjoint(columns)


def replay_columns(replayed: Replayed, wanted: Collection[str], geometry: pl.LazyFrame) -> list[pl.LazyFrame]:
    """Tables with the keys of ``geometry``, each with some of the columns ``wanted``; what was not replayed is in none.

    Args:
        replayed: the results.
        wanted: columns of the table ``replay`` in :data:`analysis.columns.COLUMNS`.
        geometry: of the run; its types of the keys are used, and its lengths of steps.
    """
    schema = geometry.collect_schema()
    found = []
    for names, make in _SOURCES.items():
        here = [name for name in wanted if name in names]
        for frame in make(replayed) if here else []:
            there = [name for name in here if name in frame.collect_schema()]
            keys = (pl.col(key).cast(schema[key], strict=False) for key in KEYS)
            found.append(frame.select(*keys, *(pl.col(name).cast(pl.Float64) for name in there)))
    if "made_made" in wanted:
        found += _made(replayed, geometry)
    return found


def _of_points(frame: pl.LazyFrame, block: str | pl.Expr = MODEL) -> pl.LazyFrame:
    block = pl.lit(block) if isinstance(block, str) else block
    return frame.with_columns(pairing=pl.lit(PREVIOUS), block=block)


def _profile(replayed: Replayed) -> list[pl.LazyFrame]:
    if not replayed.tables.get("profile"):
        return []
    segments = replayed.segments().rename({"change": "profile_change"})
    slopes = replayed.allocation().rename({"allocation": "path_slope"})
    return [_of_points(segments), _of_points(slopes, pl.col("block"))]


def _block_gaps(replayed: Replayed) -> list[pl.LazyFrame]:
    if not replayed.tables.get("block_gaps"):
        return []
    loss = pl.max_horizontal(pl.col("loss_x").abs(), pl.col("loss_y").abs())
    each = replayed.block_gaps().select("step", "block", block_gap="gap", block_loss=loss)
    # NaN where any is: a maximum would skip it
    worst = pl.when(pl.col("block_gap").is_nan().any()).then(float("nan")).otherwise(pl.col("block_gap").max())
    worst = worst.alias("block_gap")
    of_model = each.group_by("step").agg(pl.lit(MODEL).alias("block"), worst, pl.col("block_loss").max())
    return [_of_points(pl.concat([each, of_model]), pl.col("block"))]


def _along_gradient(replayed: Replayed) -> list[pl.LazyFrame]:
    if not replayed.tables.get("along_gradient"):
        return []
    slope = pl.col("slope")
    # NaN where any is: a maximum would skip it
    largest = pl.when(slope.is_nan().any()).then(float("nan")).otherwise(slope.max())
    found = replayed.along_gradient().group_by("step").agg(
        smoothness_along_gradient=largest, shortest_rate=pl.col("rate").min()
    )  # fmt: skip
    return [_of_points(found)]


def _full_batch(replayed: Replayed) -> list[pl.LazyFrame]:
    if not replayed.tables.get("full_batch"):
        return []
    step, loss = pl.col("step"), pl.col("loss")
    even = step.diff() == step.shift(-1) - step  # the last point stands anywhere
    found = replayed.full_batch().sort("step").select(
        "step",
        full_loss="loss",
        full_before=loss.shift(1),
        full_after=pl.when(even).then(loss.shift(-1)),
        full_least=loss.filter(loss.is_finite()).min(),
        full_gg="g_g",
        full_gg_before=pl.col("g_g").shift(1),
        full_ahead="g_ahead",
    )  # fmt: skip
    return [_of_points(found)]


def _jensen(replayed: Replayed) -> list[pl.LazyFrame]:
    if not replayed.tables.get("jensen"):
        return []
    wide = replayed.jensen().group_by(step="last_step").agg(
        *(pl.col("gap").filter(objective=objective).first().alias(f"jensen_{objective}")
          for objective in ("full", "minibatch")),
        jensen_loss=pl.max_horizontal(pl.col("at_mean").abs().max(), pl.col("mean").abs().max()),
    )  # fmt: skip
    return [_of_points(wide)]


def _sharpness(replayed: Replayed) -> list[pl.LazyFrame]:
    if not replayed.tables.get("sharpness"):
        return []
    kinds = {"sharpness": "euclidean", "adam_sharpness": "adam"}
    wide = replayed.sharpness().group_by("step").agg(
        pl.col(column).filter(objective=objective, metric=metric).first().alias(f"{name}_{objective}{suffix}")
        for name, metric in kinds.items()
        for objective in ("full", "minibatch")
        for column, suffix in (("eigenvalue", ""), ("residual", "_off"))
    )  # fmt: skip
    return [_of_points(wide)]


def _critical(replayed: Replayed) -> list[pl.LazyFrame]:
    if not replayed.tables.get("critical"):
        return []
    width = 1 / pl.col("rate_low") - 1 / pl.col("rate_high")  # half of 2/low − 2/high
    of = replayed.critical().with_columns(off=width)
    wide = of.group_by("step").agg(
        pl.col(column).filter(objective=objective).first().alias(f"critical_{objective}{suffix}")
        for objective in ("full", "minibatch")
        for column, suffix in (("critical_sharpness", ""), ("off", "_off"))
    )
    return [_of_points(wide)]


def _in_double(replayed: Replayed) -> list[pl.LazyFrame]:
    if not replayed.tables.get("float64"):
        return []
    found = replayed.in_double().select(
        "step",
        double_change=pl.col("loss_x") - pl.col("loss_y"),
        double_loss=pl.max_horizontal(pl.col("loss_x").abs(), pl.col("loss_y").abs()),
        double_slope="gx_d",
        double_slope_before="gy_d",
        double_room="room",
    )
    return [_of_points(found)]


def _references(replayed: Replayed) -> list[pl.LazyFrame]:
    return [replayed.references(complete=True)]


def _made(replayed: Replayed, geometry: pl.LazyFrame) -> list[pl.LazyFrame]:
    """The length of the step that made x_t beside each pair with a reference point."""
    keys = replayed.references(complete=True).select(KEYS)
    schema = geometry.collect_schema()
    keys = keys.select(pl.col(key).cast(schema[key], strict=False) for key in KEYS)
    made = geometry.filter(pl.col("pairing").cast(pl.String) == PREVIOUS).select("step", "block", made_made="d_d")
    return [keys.join(made, on=["step", "block"], how="inner")]


_SOURCES: Mapping[frozenset[str], _Made] = {
    frozenset(names.split()): make
    for names, make in (
        (
            "midpoint_defect largest_defect profile_change profile_loss path_slope curvature_high curvature_low",
            _profile,
        ),
        ("block_gap block_loss", _block_gaps),
        ("smoothness_along_gradient shortest_rate", _along_gradient),
        ("full_loss full_before full_after full_least full_gg full_gg_before full_ahead", _full_batch),
        ("jensen_full jensen_minibatch jensen_loss", _jensen),
        (
            "sharpness_full sharpness_minibatch sharpness_full_off sharpness_minibatch_off adam_sharpness_full "
            "adam_sharpness_minibatch adam_sharpness_full_off",
            _sharpness,
        ),
        ("critical_full critical_minibatch critical_full_off critical_minibatch_off", _critical),
        ("double_change double_loss double_slope double_slope_before double_room", _in_double),
        ("gy_step", _references),
    )
}
