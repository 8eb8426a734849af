"""Geometry: against numpy on the whole vectors, and its laws: no gap is crossed, cuts and blocks do not matter."""

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from analysis.geometry import geometry
from analysis.kernel import PAIR, PATH, PIECE, cuts
from analysis.tables import block_names
from tests.by_hand import flip_in, manifest, vectors, write_run
from tracer.errors import FormatError
from tracer.store import Block, Trace


def tables(path):
    t = geometry(Trace(path))
    return t.geometry.collect(), t.path.collect(), t.facts


def by_numpy(x, y, w, g, h, gp):
    d, q = x - y, g - h
    pair = (d @ d, g @ d, h @ d, q @ d, q @ q, g @ g, h @ h, g @ h)
    return dict(zip(PAIR, pair, strict=True)) | dict(zip(PATH, (x @ x, g @ x, x @ d, g @ gp, d @ (y - w)), strict=True))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inner_products_are_those_of_the_vectors_to_1e12(tmp_path, dtype):
    sizes = (3, PIECE + 5, 2 * PIECE)
    rows = vectors(5, sum(sizes), dtype)
    write_run(tmp_path / "run", rows, sizes=sizes, chunk_rows=2)
    pairs, path, _ = tables(tmp_path / "run")
    x, g, h = (rows[s].astype(np.float64) for s in "xgh")
    edges = np.cumsum([0, *sizes])
    parts = {"model": slice(None)} | {f"block{i}": slice(edges[i], edges[i + 1]) for i in range(3)}
    for t in range(1, 5):
        for block, part in parts.items():
            want = by_numpy(*(v[part] for v in (x[t], x[t - 1], x[max(t - 2, 0)], g[t], h[t], g[t - 1])))
            where = (pl.col("step") == t) & (pl.col("block") == block)
            found = pairs.filter(where).row(0, named=True) | path.filter(where).row(0, named=True)
            scale = {n: np.sqrt(abs(want["d_d"] * want["gx_gx"])) + abs(want[n]) for n in want}
            for name, value in want.items():
                if name == "d_dprev" and t == 1:
                    assert found[name] is None
                else:
                    assert abs(found[name] - value) <= 1e-12 * scale[name], (t, block, name)


def test_geometry_does_not_depend_on_how_the_trace_is_cut(tmp_path):
    rows = vectors(9, 7)
    want = None
    for cut in (1, 2, 3, 4, 9, 99):
        write_run(tmp_path / str(cut), rows, chunk_rows=cut)
        found = tables(tmp_path / str(cut))[:2]
        want = want or found
        assert_frame_equal(found[0], want[0], check_exact=True)
        assert_frame_equal(found[1], want[1], check_exact=True)


def test_no_pair_crosses_a_gap(tmp_path):
    write_run(tmp_path / "run", vectors(7, 7), at=[0, 1, 2, 5, 6, 9, 10], chunk_rows=3)
    pairs, path, _ = tables(tmp_path / "run")
    model = pairs.filter(block="model")
    assert model["step"].to_list() == [1, 2, 6, 10]
    path = path.filter(block="model")
    assert path["step"].to_list() == [0, 1, 2, 5, 6, 9, 10]
    assert path["x_d"].is_null().to_list() == [True, False, False, True, False, True, False]
    assert path["d_dprev"].is_null().to_list() == [True, True, False, True, True, True, True]


def test_a_step_without_gradient_is_a_gap(tmp_path):
    write_run(tmp_path / "run", vectors(6, 7), without={"g": (2,), "h": (2,)})
    assert tables(tmp_path / "run")[0].filter(block="model")["step"].to_list() == [1, 4, 5]


def test_without_a_probe_the_pair_is_there_with_its_second_gradient_missing_and_once_more_as_unpaired(tmp_path):
    rows = vectors(4, 7, streams=("x", "g"))
    write_run(tmp_path / "run", rows)
    pairs, _, facts = tables(tmp_path / "run")
    assert not facts.has_look_back
    previous = pairs.filter(pairing="previous", block="model")
    unpaired = pairs.filter(pairing="unpaired", block="model")
    assert previous["step"].to_list() == unpaired["step"].to_list() == [1, 2, 3]
    assert previous.null_count().row(0, named=True) == dict.fromkeys(pairs.columns, 0) | dict.fromkeys(
        ("gy_d", "dg_d", "dg_dg", "gy_gy", "gx_gy"), 3
    )
    g = rows["g"].astype(np.float64)
    np.testing.assert_allclose(unpaired["dg_dg"], [((g[t] - g[t - 1]) ** 2).sum() for t in (1, 2, 3)], rtol=1e-14)
    assert unpaired["loss_y"].to_list() == [1.0, 1 / 2, 1 / 3], "the loss of the step before, on its own minibatch"


def test_one_step_without_a_probe_among_others(tmp_path):
    write_run(tmp_path / "run", vectors(5, 7), without={"h": (0, 3)})
    pairs = tables(tmp_path / "run")[0].filter(block="model")
    assert pairs.filter(pairing="unpaired")["step"].to_list() == [3]
    assert pairs.filter(pairing="previous")["dg_d"].is_null().to_list() == [False, False, True, False]


def test_losses_stand_on_the_model_row_alone(tmp_path):
    write_run(tmp_path / "run", vectors(3, 7))
    pairs = tables(tmp_path / "run")[0]
    assert pairs.filter(block="model")["loss_x"].to_list() == [1 / 2, 1 / 3]
    assert pairs.filter(block="model")["loss_y"].to_list() == [1.1 / 2, 1.1 / 3]
    assert pairs.filter(pl.col("block") != "model")["loss_x"].null_count() == 4


def test_blocks_add_up_to_the_model(tmp_path):
    write_run(tmp_path / "run", vectors(4, 12), sizes=(3, 4, 5))
    pairs = tables(tmp_path / "run")[0]
    for name in PAIR:
        blocks = pairs.filter(pl.col("block") != "model").group_by("step", maintain_order=True).agg(pl.col(name).sum())
        np.testing.assert_allclose(blocks[name], pairs.filter(block="model")[name], rtol=1e-14, atol=1e-15)


def test_a_diverged_step_is_undefined_not_missing(tmp_path):
    rows = vectors(4, 7)
    rows["g"][2, 0] = np.nan
    write_run(tmp_path / "run", rows)
    model = tables(tmp_path / "run")[0].filter(block="model")
    assert model["gx_d"].is_nan().to_list() == [False, True, False]
    assert model["gx_d"].null_count() == 0


@pytest.mark.parametrize("steps", [0, 1])
def test_a_run_too_short_for_a_pair_gives_empty_tables_with_all_columns(tmp_path, steps):
    write_run(tmp_path / "run", {s: v[:steps] for s, v in vectors(1, 7).items()})
    pairs, path, _ = tables(tmp_path / "run")
    assert (len(pairs), len(path)) == (0, 3 * steps)
    assert pairs.columns == ["pairing", "step", "block", "loss_x", "loss_y", *PAIR]
    assert path.columns == ["step", "block", *PATH]


def test_differences_are_formed_before_the_products(tmp_path):
    """Two gradients that differ in the last bits: from Gram entries in float32, |g - h|^2 would be mostly noise."""
    rows = vectors(2, 7)
    rows["h"][1] = np.nextafter(rows["g"][1], np.float32(9))
    write_run(tmp_path / "run", rows)
    found = tables(tmp_path / "run")[0].filter(block="model")["dg_dg"].item()
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
