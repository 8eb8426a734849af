"""Geometry: every pairing and column against numpy on the whole vectors; what is missing, undefined, on which row."""

import numpy as np
import polars as pl
import pytest
from numpy.testing import assert_allclose

from analysis.columns import GEOMETRY, PATH
from analysis.geometry import geometry
from analysis.tables import MODEL, block_names
from analysis.vectors.kernel import PIECE, cuts
from analysis.vectors.products import PAIR
from tests.by_hand import flip_in, manifest, vectors, write_run
from tests.problems import Run
from tests.tables_by_hand import tables as by_hand
from tracer.errors import FormatError
from tracer.store import Block, Trace

EVERYTHING = ("x", "g", "h", "a", "ga", "gb")
TWO_GRADIENTS = ("gy_d", "dg_d", "dg_dg", "gy_gy", "gx_gy", "dg_norms")


def tables(path, **how):
    t = geometry(Trace(path), **how)
    return t.geometry.collect(), t.path.collect(), t.facts


def model(pairs, pairing="previous"):
    return pairs.filter(pairing=pairing, block="model")


def written(path, steps, size, streams=EVERYTHING, dtype="float32", closing=True, **how):
    """A run of random vectors on disk, the last row a point alone if ``closing``, and its arrays in float64."""
    rows = vectors(steps + closing, size, dtype, streams)
    losses = {"loss_next": [1.2 / (1 + t) for t in range(steps + closing)]} if "a" in streams else {}
    losses |= {"loss_previous": [1.1 / (1 + t) if "h" in streams else None for t in range(steps + closing)]}
    alone = {s: (steps,) for s in streams if s != "x"} if closing else {}
    write_run(path, rows, without=alone, more=losses, **how)
    exact = {s: v[:steps].astype(np.float64) for s, v in rows.items()}
    t = np.arange(steps)
    run = Run(
        x=exact["x"],
        g=exact["g"],
        h=exact.get("h"),
        loss=1 / (1 + t),
        loss_previous=1.1 / (1 + t),
        lr=np.full(steps, 0.1),
        a=exact.get("a"),
        loss_next=1.2 / (1 + t),
        final=rows["x"][-1].astype(np.float64) if closing else None,
    )
    return run, (exact["ga"], exact["gb"]) if "ga" in streams else None


def assert_same_table(found, want, tolerance=1e-12):
    assert found.columns == want.columns
    assert found.height == want.height
    for name in found.columns:
        if found[name].dtype != pl.Float64:
            assert found[name].cast(pl.String).to_list() == want[name].cast(pl.String).to_list(), name
            continue
        assert found[name].is_null().to_list() == want[name].is_null().to_list(), name
        ours, theirs = found[name].drop_nulls().to_numpy(), want[name].drop_nulls().to_numpy()
        scale = np.abs(theirs[np.isfinite(theirs)]).max(initial=0.0)
        assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * scale, err_msg=name)


CASES = {
    "everything": {},
    "float64": {"dtype": "float64"},
    "no look-ahead": {"streams": ("x", "g", "h")},
    "points and gradients": {"streams": ("x", "g")},
    "killed": {"closing": False},
    "over the edge of a window": {"at": [*range(95, 108)]},
    "gaps": {"at": [0, 1, 2, 5, 6, 9, 10, 11, 12, 13, 14, 150, 151], "chunk_rows": 3},
    "a closing row alone in its chunk": {"chunk_rows": 4},
}


@pytest.mark.parametrize("case", CASES)
def test_every_pairing_and_column_is_that_of_the_vectors(tmp_path, case):
    how = {"sizes": (3, 4), **CASES[case]}
    count = 12
    run, halves = written(tmp_path / "run", count, 7, **how)
    steps = how.get("at", range(count + 1))[:count]
    closed = how.get("closing", True) and how.get("at", range(count + 1))[count] == steps[-1] + 1
    if not closed:
        run = Run(**{**vars(run), "final": None})
    streams = how.get("streams", EVERYTHING)
    last = run.x[-1] if run.final is None else run.final
    want = by_hand(
        run,
        look_back="h" in streams,
        look_ahead="a" in streams,
        halves=halves,
        blocks=(3, 4),
        steps=np.array(steps),
        references={"last": last, "initial": run.x[0]},
        pairings=("previous", "next", "unpaired"),
    )
    found = geometry(Trace(tmp_path / "run"), references=("last", "initial"))
    names = {"w0": "block0", "w1": "block1"}
    for one, other in ((found.geometry, want.geometry), (found.path, want.path)):
        renamed = other.collect().with_columns(pl.col("block").cast(pl.String).replace(names))
        assert_same_table(one.collect(), renamed)
    assert found.facts.references == ("last", "initial")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_long_vectors_are_summed_to_1e12(tmp_path, dtype):
    sizes = (3, PIECE + 5, 15 * PIECE, 2)
    run, halves = written(tmp_path / "run", 3, sum(sizes), dtype=dtype, sizes=sizes, chunk_rows=2)
    how = {"look_ahead": True, "pairings": ("previous", "next", "unpaired"), "references": {"last": run.final}}
    want = by_hand(run, halves=halves, blocks=sizes, **how)
    found = geometry(Trace(tmp_path / "run"), references=("last",))
    names = {f"w{i}": f"block{i}" for i in range(4)}
    for one, other in ((found.geometry, want.geometry), (found.path, want.path)):
        assert_same_table(one.collect(), other.collect().with_columns(pl.col("block").cast(pl.String).replace(names)))


def test_no_pair_crosses_a_gap(tmp_path):
    write_run(tmp_path / "run", vectors(7, 7), at=[0, 1, 2, 5, 6, 9, 10], chunk_rows=3)
    pairs, path, _ = tables(tmp_path / "run")
    assert model(pairs)["step"].to_list() == model(pairs, "unpaired")["step"].to_list() == [1, 2, 6, 10]
    assert model(pairs, "next")["step"].to_list() == [0, 1, 5, 9]
    assert model(pairs, "reference:last")["d_ahead"].is_null().to_list() == [False] * 2 + [True, False] * 2 + [True]
    path = path.filter(block="model")
    assert path["step"].to_list() == [0, 1, 2, 5, 6, 9, 10]
    assert path["x_d"].is_null().to_list() == [True, False, False, True, False, True, False]
    assert path["d_dprev"].is_null().to_list() == [True, True, False, True, True, True, True]
    assert path["step_step"].is_null().to_list() == [False, False, True, False, True, False, True]


def test_a_step_without_gradient_is_a_gap_but_its_point_ends_the_step_before(tmp_path):
    write_run(tmp_path / "run", vectors(6, 7), without={"g": (2,), "h": (2,)})
    pairs, path, _ = tables(tmp_path / "run")
    assert model(pairs)["step"].to_list() == [1, 4, 5]
    assert model(pairs, "next")["step"].to_list() == [0, 1, 3, 4]
    assert path.filter(block="model")["step"].to_list() == [0, 1, 3, 4, 5]


def test_without_probes_the_pair_is_there_with_its_second_gradient_missing(tmp_path):
    rows = vectors(4, 7, streams=("x", "g"))
    write_run(tmp_path / "run", rows, more={"loss_previous": [None] * 4})
    pairs, _, facts = tables(tmp_path / "run", references=())
    assert not facts.has_look_back
    previous, unpaired, following = (model(pairs, p) for p in ("previous", "unpaired", "next"))
    assert previous["step"].to_list() == unpaired["step"].to_list() == [1, 2, 3]
    none = dict.fromkeys(pairs.columns, 0) | {"d_ahead": 3, "y_y": 3}
    assert previous.null_count().row(0, named=True) == none | dict.fromkeys((*TWO_GRADIENTS, "loss_y"), 3)
    assert unpaired.null_count().row(0, named=True) == none
    of_look_ahead = ("loss_x", "gx_d", "dg_d", "dg_dg", "gx_gx", "gx_gy", "dg_norms")
    assert following.null_count().row(0, named=True) == none | dict.fromkeys(of_look_ahead, 3)
    assert pairs.filter(pl.col("block") != "model")["pairing"].unique().to_list() == ["previous"]
    g = rows["g"].astype(np.float64)
    assert_allclose(unpaired["dg_dg"], [((g[t] - g[t - 1]) ** 2).sum() for t in (1, 2, 3)], rtol=1e-14)
    assert unpaired["loss_y"].to_list() == [1.0, 1 / 2, 1 / 3], "the loss of the step before, on its own minibatch"


@pytest.mark.parametrize("chunk_rows", [1, 99])
def test_one_step_without_a_probe_among_others(tmp_path, chunk_rows):
    rows = vectors(5, 7, streams=("x", "g", "h", "a"))
    write_run(tmp_path / "run", rows, without={"h": (0, 3), "a": (2,)}, chunk_rows=chunk_rows)
    pairs, path, _ = tables(tmp_path / "run")
    assert model(pairs, "unpaired")["step"].to_list() == [1, 2, 3, 4]
    assert model(pairs)["dg_d"].is_null().to_list() == [False, False, True, False]
    assert model(pairs, "next")["dg_d"].is_null().to_list() == [False, False, True, False]
    assert path.filter(block="model")["dg_sum"].is_null().to_list() == [True, False, False, True, False]
    g = rows["g"].astype(np.float64)
    want = [((g[t] - g[t - 1]) ** 2).sum() for t in (1, 2, 3, 4)]
    assert_allclose(model(pairs, "unpaired")["dg_dg"], want, rtol=1e-13)


def test_losses_stand_on_the_model_row_alone(tmp_path):
    write_run(tmp_path / "run", vectors(3, 7))
    pairs = tables(tmp_path / "run")[0]
    assert model(pairs)["loss_x"].to_list() == [1 / 2, 1 / 3]
    assert model(pairs)["loss_y"].to_list() == [1.1 / 2, 1.1 / 3]
    of_blocks = pairs.filter(pl.col("block") != "model", pl.col("pairing").cast(pl.String) == "previous")
    assert of_blocks["loss_x"].null_count() == 4


def test_blocks_that_were_not_recorded_leave_the_models_loss_without_meaning(tmp_path):
    write_run(tmp_path / "run", vectors(3, 7), unrecorded_parameters=5)
    pairs = tables(tmp_path / "run")[0]
    assert pairs["loss_x"].null_count() == pairs["loss_y"].null_count() == len(pairs)


def test_a_diverged_step_is_undefined_not_missing(tmp_path):
    rows = vectors(6, 7)
    rows["g"][2, 0] = np.nan
    rows["x"][4, 3] = np.inf
    write_run(tmp_path / "run", rows)
    pairs, path, _ = tables(tmp_path / "run")
    assert model(pairs)["gx_d"].is_nan().to_list() == [False, True, False, False, False]
    assert model(pairs)["d_d"].to_list()[3:] == [np.inf, np.inf]
    assert model(pairs)["gx_d"].null_count() == 0
    path = path.filter(block="model")
    assert path["gsum_gsum"].is_nan().to_list() == [False, False, True, True, True, True]
    assert path["d_max"].is_infinite().to_list() == [None, False, False, False, True, True]
    rows["x"][4, 3] = np.nan
    write_run(tmp_path / "nan", rows)
    assert tables(tmp_path / "nan")[1].filter(block="model")["d_max"].is_nan().to_list()[1:] == [False] * 3 + [True] * 2


@pytest.mark.parametrize("huge", [1e30, 3e38, np.inf, np.nan])
def test_a_run_that_ends_in_overflow_is_read_without_a_word(tmp_path, huge):
    rows = vectors(6, 7, streams=EVERYTHING)
    for name in rows:
        rows[name][4:] = np.copysign(np.float32(huge), rows[name][4:])
    write_run(tmp_path / "run", rows, more={"epoch": [0, 0, 0, 1, 1, 1]})
    pairs, path, facts = tables(tmp_path / "run")
    assert len(facts.references) == 7
    assert not model(pairs).filter(pl.col("step") >= 4)["d_d"].is_between(0, 1e50).any()
    assert model(pairs, "next")["gx_gx"].is_between(0, 1e3).to_list() == [True] * 4 + [False]
    assert path.filter(block="model")["gsum_gsum"].is_between(0, 1e3).to_list() == [True] * 4 + [False] * 2


@pytest.mark.parametrize("steps", [0, 1])
def test_a_run_too_short_for_a_pair_gives_empty_tables_with_all_columns(tmp_path, steps):
    write_run(tmp_path / "run", {s: v[:steps] for s, v in vectors(1, 7).items()})
    pairs, path, _ = tables(tmp_path / "run", references=())
    assert (len(pairs), len(path)) == (0, 3 * steps)
    assert pairs.columns == ["pairing", "step", "block", *GEOMETRY]
    assert path.columns == ["step", "block", *PATH]
    pairs, _, facts = tables(tmp_path / "run")
    assert set(facts.references) == ({"last", "tail_mean", "ema", "best_loss", "initial", "random"} if steps else set())
    assert model(pairs, "reference:last")["d_d"].to_list() == [0.0] if steps else pairs.is_empty()


def test_a_single_parameter(tmp_path):
    rows = vectors(4, 1)
    write_run(tmp_path / "run", rows, sizes=(1,))
    pairs, path, _ = tables(tmp_path / "run")
    x = rows["x"].astype(np.float64)[:, 0]
    assert_allclose(model(pairs)["d_d"], np.diff(x) ** 2)
    assert model(pairs)["d_norms"].to_list() == path.filter(block="model")["d_max"].to_list()[1:]


def test_points_without_any_gradient_have_no_geometry(tmp_path):
    write_run(tmp_path / "run", vectors(4, 7, streams=("x",)))
    pairs, path, _ = tables(tmp_path / "run")
    assert pairs.is_empty()
    assert path.is_empty()


def test_differences_are_formed_before_the_products(tmp_path):
    """Two gradients that differ in the last bits: from Gram entries in float32, |g - h|^2 would be mostly noise."""
    rows = vectors(2, 7)
    rows["h"][1] = np.nextafter(rows["g"][1], np.float32(9))
    write_run(tmp_path / "run", rows)
    found = model(tables(tmp_path / "run")[0])["dg_dg"].item()
    exact = ((rows["g"][1].astype(np.float64) - rows["h"][1].astype(np.float64)) ** 2).sum()
    assert found == pytest.approx(exact, rel=1e-14)


def test_nothing_is_computed_from_a_damaged_file(tmp_path):
    write_run(tmp_path / "run", vectors(4, 700), sizes=(700,))
    flip_in(tmp_path / "run" / "chunk-000000.h5", "x")
    with pytest.raises(FormatError, match=r"chunk-000000\.h5: step \d, stream 'x': the hash does not match"):
        geometry(Trace(tmp_path / "run"))


def test_a_parameter_called_model_does_not_take_the_models_name():
    m = manifest().with_(blocks=(Block("model", (2,), "float32", 0, 2), Block("w", (1,), "float32", 2, 1)))
    assert block_names(m) == ("model (parameter)", "w")


def test_pieces_cover_every_element_once_and_cross_no_block():
    sizes = [1, 0, PIECE, PIECE + 1, 5]
    found = cuts(sizes)
    covered = np.concatenate([np.arange(a, b) for _, a, b in found])
    assert covered.tolist() == list(range(sum(sizes)))
    edges = np.cumsum([0, *sizes])
    assert all(edges[k] <= a < b <= edges[k + 1] for k, a, b in found)


def test_the_tables_have_the_declared_columns_and_types(tmp_path):
    write_run(tmp_path / "run", vectors(3, 7))
    found = geometry(Trace(tmp_path / "run"), references=("last",))
    schema = found.geometry.collect_schema()
    assert list(schema) == ["pairing", "step", "block", *GEOMETRY]
    assert schema["pairing"] == pl.Enum(["previous", "next", "unpaired", "reference:last"])
    assert schema["block"] == pl.Enum([MODEL, "block0", "block1"])
    assert {schema[name] for name in GEOMETRY} == {pl.Float64()}
    assert set(PAIR) < set(GEOMETRY)
