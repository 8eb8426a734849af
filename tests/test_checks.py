"""Checks of a trace: sound ones pass, each kind of damage is found by the check meant for it."""

import numpy as np
import polars as pl
import pytest

from analysis.soundness.checks import IDENTITIES as NAMED
from analysis.soundness.checks import ODDITIES as CALLED_ODD
from analysis.soundness.checks import trace_checks
from analysis.tables import Tables
from tests.problems import descend, logistic, quadratic
from tests.tables_by_hand import tables

IDENTITIES = {
    "polarisation of gradients",
    "slopes of a pair",
    "Cauchy-Schwarz for gx and d",
    "Cauchy-Schwarz for gy and d",
    "Cauchy-Schwarz for gx − gy and d",
    "Cauchy-Schwarz for gx and gy",
    "Gram matrix of d, gx and gy",
    "update correlation is loss change minus convexity gap",
    "polarisation of points",
    "the step that leaves is the step that arrives",
    "Cauchy-Schwarz along the path",
    "blocks add up to the model",
    "polarisation of references",
    "sum of slopes from the first point",
    "energy of the update",
    "the update is the optimizer's own",
}
GRAM = {"Gram matrix of d, gx and gy"}
ODDITIES = {"finite", "no gaps", "one minibatch, one loss"}


def made(run, **changes) -> Tables:
    """Tables of a run of plain SGD as geometry makes them, with all pairings and the optimizer's own formula."""
    given = tables(
        run,
        references={} if run.final is None else {"last": run.final, "initial": run.x[0]},
        hyperparameters={"momentum": 0, "dampening": 0, "weight_decay": 0},
        changed_updates=False,
        **{"pairings": ("previous", "next", "unpaired"), **changes},
    )
    room = 1e-30 * (pl.col("x_x") + pl.col("step_step"))
    own = given.path.with_columns(slip_slip=0 * pl.col("step_step"), slip_room=room)
    return Tables(given.geometry, own, given.steps, given.facts)


def sound(**changes) -> Tables:
    return made(descend(logistic(1), 0.3, 60), **{"blocks": 2, **changes})


def at(step, block, column, factor):
    here = (pl.col("step") == step) & (pl.col("block").cast(str) == block)
    return pl.when(here).then(pl.col(column) * factor).otherwise(pl.col(column)).alias(column)


def only(pairing, change, column):
    return pl.when(pl.col("pairing").cast(str) == pairing).then(change).otherwise(pl.col(column)).alias(column)


def broken(given, table, *changes):
    parts = {"geometry": given.geometry, "path": given.path}
    parts[table] = parts[table].with_columns(*changes)
    return Tables(parts["geometry"], parts["path"], given.steps, given.facts)


def failed(given) -> set[str]:
    return {c.name for c in trace_checks(given) if not c.passed}


@pytest.mark.parametrize("look_back", [True, False])
def test_a_sound_trace_passes_every_check(look_back):
    results = trace_checks(sound(look_back=look_back))
    assert {c.name for c in results} == IDENTITIES | ODDITIES == {name for name, _ in (*NAMED, *CALLED_ODD)}
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
        (
            "d_d",
            {
                "polarisation of points",
                "blocks add up to the model",
                "the step that leaves is the step that arrives",
            },
        ),
    ],
)
def test_a_float32_rounding_in_one_number_is_found(column, found):
    here = at(30, "w1", column, 1 + 1e-7)
    # two gradients and a step in two dimensions: the Gram matrix notices, too
    assert failed(broken(sound(), "geometry", only("previous", here, column))) - GRAM == found


@pytest.mark.parametrize(
    ("table", "pairing", "column", "found"),
    [
        ("geometry", "reference:initial", "d_ahead", {"polarisation of references", "energy of the update"}),
        ("geometry", "reference:last", "d_d", {"polarisation of references"}),
        ("geometry", "reference:last", "gx_d", {"energy of the update"}),
        ("geometry", "reference:initial", "gx_d", {"energy of the update", "sum of slopes from the first point"}),
        ("path", None, "gmove", {"sum of slopes from the first point"}),
        (
            "path",
            None,
            "step_step",
            {
                "the step that leaves is the step that arrives",
                "polarisation of references",
                "energy of the update",
            },
        ),
    ],
)
def test_a_float32_rounding_in_what_the_optimizer_left_behind_is_found(table, pairing, column, found):
    here = at(30, "model", column, 1 + 1e-7)
    given = broken(sound(), table, only(pairing, here, column) if pairing else here)
    assert failed(given) - {"blocks add up to the model"} == found


def everywhere(table, pairing, step, column, factor):
    """One tensor's number and the model's, which is the same: nothing tells the two apart."""
    here = pl.when(pl.col("step") == step).then(pl.col(column) * factor).otherwise(pl.col(column)).alias(column)
    return broken(sound(blocks=1), table, only(pairing, here, column) if pairing else here)


@pytest.mark.parametrize(
    ("table", "pairing", "column", "found"),
    [
        ("geometry", "previous", "dg_dg", "polarisation of gradients"),
        ("geometry", "previous", "dg_d", "slopes of a pair"),
        ("path", None, "x_x", "polarisation of points"),
        ("path", None, "gmove", "sum of slopes from the first point"),
        ("geometry", "reference:last", "d_d", "polarisation of references"),
        ("geometry", "reference:last", "gx_d", "energy of the update"),
    ],
)
def test_exactly_the_identity_that_a_number_belongs_to_is_broken(table, pairing, column, found):
    assert failed(everywhere(table, pairing, 30, column, 1 + 1e-7)) - GRAM == {found}


@pytest.mark.parametrize("column", ["g_gprev", "d_dprev"])
def test_exactly_cauchy_schwarz_is_broken_by_an_impossible_product_along_the_path(column):
    assert failed(everywhere("path", None, 30, column, 1e6)) == {"Cauchy-Schwarz along the path"}


def test_exactly_the_sum_of_the_blocks_is_broken_by_one_tensor_of_a_reference_pair():
    here = only("reference:last", at(30, "w1", "gx_d", 1 + 1e-7), "gx_d")
    assert failed(broken(sound(), "geometry", here)) == {"blocks add up to the model"}


@pytest.mark.parametrize("column", ["g_x", "x_d", "g_gprev", "d_dprev"])
def test_an_impossible_product_along_the_path_is_found(column):
    assert "Cauchy-Schwarz along the path" in failed(broken(sound(), "path", at(30, "w1", column, 1e6)))


def test_three_products_that_are_possible_in_pairs_only_are_found():
    """Cosines 0.9, 0.9 and −0.9: any two of them may be, but not all three."""
    one = {"d_d": 1.0, "gx_gx": 1.0, "gy_gy": 1.0, "gx_d": 0.9, "gy_d": 0.9, "gx_gy": -0.9}
    here = (pl.col("step") == 30) & (pl.col("block").cast(str) == "w1")
    changes = [pl.when(here).then(value).otherwise(pl.col(name)).alias(name) for name, value in one.items()]
    found = failed(broken(sound(blocks=(2, 3)), "geometry", *changes))
    assert "Gram matrix of d, gx and gy" in found
    assert not {name for name in found if name.startswith("Cauchy-Schwarz")}


@pytest.mark.parametrize(
    ("name", "factor"), [("lr", 1 + 1e-7), ("momentum", None), ("weight_decay", None), ("clip_factor", None)]
)
def test_a_wrong_setting_breaks_the_energy(name, factor):
    given = sound()
    value = pl.col("lr") * factor if factor else pl.lit(0.999 if name == "clip_factor" else 0.01)
    wrong = Tables(given.geometry, given.path, given.steps.with_columns(value.alias(name)), given.facts)
    assert failed(wrong) == {"energy of the update"}


def test_a_step_that_is_not_the_formulas_does_not_break_the_energy_but_is_found():
    run = descend(logistic(1), 0.3, 60)
    for after in range(31, 60):
        run.x[after] += 1e-3  # and all points after it: one step is another one
    run.final[:] += 1e-3
    given = made(run)
    slipped = pl.when(pl.col("step") == 30).then(5e-6).otherwise(pl.col("slip_slip"))
    found = {c.name: c for c in trace_checks(broken(given, "path", slipped.alias("slip_slip"))) if not c.passed}
    assert set(found) == {"the update is the optimizer's own"}
    assert found["the update is the optimizer's own"].severity == "error"


def test_losses_that_differ_on_one_minibatch_are_odd_not_broken():
    run = descend(quadratic(np.diag([1.0, 2.0]), np.ones(2)), 0.1, 30)
    for batches, off, passed in (([7] * 30, 0.0, True), ([7] * 30, 1e-3, False), (range(30), 1e-3, True)):
        run.loss_previous[20] = run.loss[19] + off
        given = made(run)
        steps = given.steps.with_columns(
            batch=pl.Series(list(batches), dtype=pl.Int64), loss_previous=pl.Series(run.loss_previous)
        )
        results = trace_checks(Tables(given.geometry, given.path, steps, given.facts))
        found = next(c for c in results if c.name == "one minibatch, one loss")
        assert (found.passed, found.severity) == (passed, "warn")
    assert "no two steps in a row" in found.description


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
        given = made(run)
    results = trace_checks(given)
    assert {(c.name, c.severity) for c in results if not c.passed} == {("finite", "warn")}
    finite = next(c for c in results if c.name == "finite")
    assert finite.numbers["first_step"] == int(np.flatnonzero(~np.isfinite(run.loss))[0])


def test_gaps_in_the_steps_are_described():
    steps = np.r_[0:20, 30:50, 55:75]
    given = made(descend(logistic(1), 0.3, 60), steps=steps)
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
