"""Checks of a trace: sound ones pass, each kind of damage is found by the check meant for it."""

import numpy as np
import polars as pl
import pytest

from analysis.checks import trace_checks
from analysis.tables import Tables
from tests.problems import descend, logistic, quadratic
from tests.tables_by_hand import tables

IDENTITIES = {
    "polarisation of gradients",
    "slopes of a pair",
    "Cauchy-Schwarz for gx and d",
    "Cauchy-Schwarz for gx − gy and d",
    "Cauchy-Schwarz for gx and gy",
    "update correlation is loss change minus convexity gap",
    "polarisation of points",
    "blocks add up to the model",
}


def sound(**changes) -> Tables:
    return tables(descend(logistic(1), 0.3, 60), blocks=2, **changes)


def at(step, block, column, factor):
    here = (pl.col("step") == step) & (pl.col("block").cast(str) == block)
    return pl.when(here).then(pl.col(column) * factor).otherwise(pl.col(column)).alias(column)


def broken(given, table, *changes):
    parts = {"geometry": given.geometry, "path": given.path}
    parts[table] = parts[table].with_columns(*changes)
    return Tables(parts["geometry"], parts["path"], given.steps, given.facts)


def failed(given) -> set[str]:
    return {c.name for c in trace_checks(given) if not c.passed}


@pytest.mark.parametrize("look_back", [True, False])
def test_a_sound_trace_passes_every_check(look_back):
    results = trace_checks(sound(look_back=look_back))
    assert {c.name for c in results} == {*IDENTITIES, "finite", "no gaps"}
    assert all(c.passed for c in results)
    assert {c.name for c in results if c.severity == "error"} == IDENTITIES
    assert all(c.numbers["rows"] > 0 for c in results if c.name in IDENTITIES)


@pytest.mark.parametrize(
    ("column", "found"),
    [
        ("dg_dg", {"polarisation of gradients", "blocks add up to the model"}),
        ("gx_gy", {"polarisation of gradients", "blocks add up to the model"}),
        ("dg_d", {"slopes of a pair", "blocks add up to the model"}),
        ("gy_d", {"slopes of a pair", "blocks add up to the model"}),
        ("d_d", {"polarisation of points", "blocks add up to the model"}),
    ],
)
def test_a_float32_rounding_in_one_number_is_found(column, found):
    assert failed(broken(sound(), "geometry", at(30, "w1", column, 1 + 1e-7))) == found


def test_a_damaged_point_is_found_against_the_row_before():
    results = trace_checks(broken(sound(), "path", at(30, "w0", "x_x", 1 + 1e-7)))
    result = next(c for c in results if c.name == "polarisation of points")
    assert (result.passed, result.severity) == (False, "error")
    assert result.numbers["rows_failed"] == 2
    assert result.numbers["step"] in (30, 31)
    assert result.numbers["block"] == "w0"
    assert result.numbers["worst_in_tolerances"] > 1e3
    assert "record the run again" in result.description


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("gx_d", "Cauchy-Schwarz for gx and d"),
        ("dg_d", "Cauchy-Schwarz for gx − gy and d"),
        ("gx_gy", "Cauchy-Schwarz for gx and gy"),
    ],
)
def test_an_impossible_inner_product_is_found(column, name):
    assert name in failed(broken(sound(), "geometry", at(30, "model", column, 1e6)))


def test_a_block_that_is_missing_is_not_taken_for_zero():
    here = (pl.col("step") == 30) & (pl.col("block").cast(str) == "w1")
    for gone in (None, float("nan")):
        change = pl.when(here).then(pl.lit(gone, pl.Float64)).otherwise(pl.col("gx_gx")).alias("gx_gx")
        assert "blocks add up to the model" in failed(broken(sound(), "geometry", change))


def test_a_run_that_diverged_is_a_warning_with_its_first_step_not_broken_data():
    with np.errstate(all="ignore"):
        run = descend(quadratic(np.diag([100.0, 1.0]), np.ones(2)), 0.5, 250)
        given = tables(run)
    results = trace_checks(given)
    assert {(c.name, c.severity) for c in results if not c.passed} == {("finite", "warn")}
    finite = next(c for c in results if c.name == "finite")
    assert finite.numbers["first_step"] == int(np.flatnonzero(~np.isfinite(run.loss))[0])


def test_gaps_in_the_steps_are_described():
    steps = np.r_[0:20, 30:50, 55:75]
    given = tables(descend(logistic(1), 0.3, 60), steps=steps)
    result = next(c for c in trace_checks(given) if c.name == "no gaps")
    assert (result.passed, result.severity) == (False, "warn")
    assert (result.numbers["gaps"], result.numbers["first_gap_after_step"]) == (2, 19)
    assert result.numbers["steps_left_out"] == 15
    assert failed(given) == {"no gaps"}


@pytest.mark.parametrize("steps", [0, 1])
def test_a_run_without_a_pair_is_not_tested_and_says_so(steps):
    results = trace_checks(tables(descend(logistic(1), 0.3, steps)))
    untested = [c for c in results if c.name in IDENTITIES]
    assert {(c.passed, c.severity) for c in untested} == {(False, "warn")}
    assert all("not tested" in c.description for c in untested)
