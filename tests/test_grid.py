"""The rectangle of steps and tensors, and what is summed over it, against plain tables and numpy."""

import numpy as np
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from analysis.judging.grid import grids
from analysis.judging.reductions import batched, summaries
from analysis.rows import rows
from analysis.tables import MODEL, Tables
from tests.problems import descend, positive_definite, quadratic
from tests.tables_by_hand import tables

NEEDED = ("dg_d", "g_gprev", "lr_d", "u_loss", "epoch", "no_such_column")


def _given(**changed) -> Tables:
    run = descend(quadratic(positive_definite(6, 0.1, 2.0, 0), np.ones(6)), 0.05, 40)
    made = tables(run, blocks=3, look_ahead=True, hyperparameters={"epoch": 1.0})
    return Tables(**{**{name: getattr(made, name) for name in ("geometry", "path", "steps", "facts")}, **changed})


def _agrees(given: Tables, counts: dict[str, int]) -> None:
    """Every number of the grids is that of the tables joined, and everything else is missing."""
    found = {grid.pairing: grid for grid in grids(given, NEEDED, counts)}
    assert found.keys() == counts.keys()
    every = rows(given, NEEDED, counts, model=False).collect().filter(pl.col("block") != MODEL)
    for pairing, grid in found.items():
        table = every.filter(pl.col("pairing").cast(pl.String) == pairing).with_columns(pl.col("block").cast(pl.String))
        assert (len(grid.steps), grid.blocks) == (table["step"].n_unique(), ("w0", "w1", "w2"))
        for name in NEEDED:
            values, missing = grid.array(pl.col(name))
            number = {(row["step"], row["block"]): row[name] for row in table.iter_rows(named=True)}
            by_hand = [[number.get((step, block)) for block in grid.blocks] for step in grid.steps["step"]]
            assert_array_equal(values, np.array(by_hand, float))
            assert_array_equal(missing if missing.size else np.zeros_like(values, bool), np.equal(by_hand, None))


def test_columns_stand_side_by_side_as_if_they_had_been_joined():
    _agrees(_given(), {"previous": 39, "next": 40})


@pytest.mark.parametrize(
    "changed",
    [
        lambda t: t.filter((pl.col("step") < 10) | (pl.col("step") > 20)),
        lambda t: t.filter((pl.col("step") != 7) | (pl.col("block").cast(pl.String) != "w1")),
        lambda t: t.sort("step", maintain_order=True),
        lambda t: t.sort("block", "step"),
        lambda t: t.reverse(),
    ],
    ids=["a gap", "a tensor without a row", "by step", "by block", "backwards"],
)
@pytest.mark.parametrize("table", ["geometry", "path"])
def test_rows_in_any_order_and_with_holes_give_the_same_numbers(table, changed):
    whole = _given()
    given = _given(**{table: changed(getattr(whole, table).collect()).lazy()})
    model = given.geometry.filter(pl.col("block") == MODEL).group_by(pl.col("pairing").cast(pl.String)).len()
    lengths = dict(model.collect().iter_rows())
    _agrees(given, {pairing: lengths[pairing] for pairing in ("previous", "next")})


def test_pairings_that_have_rows_of_the_model_alone_have_no_grid():
    given = _given()
    assert [grid.pairing for grid in grids(given, ["d_d"], {"unpaired": 39, "previous": 39})] == ["previous"]


@pytest.mark.parametrize("n", [1, 2, 3, 10, 99, 1000])
@pytest.mark.parametrize(
    "draw",
    [
        lambda r, n: r.standard_normal(n),
        lambda r, n: r.integers(0, 3, n).astype(float),
        lambda r, n: np.arange(n)[::-1].astype(float),
        lambda r, n: np.full(n, 2.5),
    ],
    ids=["normal", "ties", "falling", "constant"],
)
def test_medians_and_sums_are_those_of_numpy(n, draw):
    random = np.random.default_rng(n)
    values = np.column_stack([draw(random, n) for _ in range(3)])
    holes = random.random((n, 3)) < 0.1
    holes[0] = False
    values[holes] = np.nan
    missing = holes & (random.random((n, 3)) < 0.5)
    counts, found = summaries(values, missing, np.arange(n), np.array([0]), np.array([n]))
    assert_array_equal(counts[:, 0], np.stack([(~holes).sum(0), (holes & ~missing).sum(0), missing.sum(0)], axis=1))
    by_hand = [np.nansum(values, 0), np.nanmin(values, 0), np.nanmedian(values, 0), np.nanmax(values, 0)]
    assert_allclose(found[:, 0], np.stack(by_hand, axis=1), rtol=1e-13)


def test_batches_are_summed_and_compared_with_their_neighbour_alone():
    values, factors = np.random.default_rng(0).standard_normal((50, 2)), np.array([1.0, 0.5])
    edges = np.array([0, 12, 25, 37, 50])
    sums, squares, products = batched(values, factors, edges)
    assert_allclose(sums, [values[a:b].sum(0) * factors for a, b in ((0, 12), (12, 25), (25, 37), (37, 50))])
    windows = [part - part.mean(0) for part in (values[:25] * factors, values[25:] * factors)]
    assert_allclose(squares, sum((part**2).sum(0) for part in windows))
    assert_allclose(products, sum((part[1:] * part[:-1]).sum(0) for part in windows))
