"""Laws of the geometry: cuts into chunks, segments, parts and blocks do not matter; passes see every row once."""

import numpy as np
import polars as pl
import pytest
from numpy.testing import assert_allclose
from polars.testing import assert_frame_equal

from analysis.columns import COLUMNS, GEOMETRY, PATH
from analysis.geometry import geometry
from analysis.tables import MODEL
from analysis.vectors import long, reduce, spread
from analysis.vectors.kernel import PIECE
from tests.by_hand import manifest, vectors, write_run
from tracer.errors import UsageError
from tracer.store import Trace
from tracer.store.run_writer import RunWriter

EVERYTHING = ("x", "g", "h", "a", "ga", "gb")
# at a step: a maximum, and sums of norms, are not additive over coordinates
NOT_ADDITIVE = {"loss_x", "loss_y", "d_max", "wcount"}
EPOCHS = [0] * 4 + [1] * 5 + [2] * 3 + [None]


def tables(path, **how):
    t = geometry(Trace(path), **how)
    return t.geometry.collect(), t.path.collect()


def write_all(path, steps=13, size=7, **how):
    """Every stream, three epochs, a point alone at the end, and the edge of a window inside."""
    rows = vectors(steps, size, streams=EVERYTHING)
    how = {"at": range(95, 95 + steps), "more": {"epoch": EPOCHS, "loss_next": [0.5] * steps}, **how}
    write_run(path, rows, without=dict.fromkeys(EVERYTHING[1:], (steps - 1,)), **how)
    return rows


def assert_equal(found, want):
    for one, other in zip(found, want, strict=True):
        assert_frame_equal(one, other, check_exact=True)


def test_geometry_does_not_depend_on_how_the_trace_is_cut(tmp_path):
    want = None
    for cut in (1, 2, 3, 4, 9, 12, 99):
        write_all(tmp_path / str(cut), chunk_rows=cut)
        found = tables(tmp_path / str(cut))
        want = want or found
        assert found[0]["pairing"].n_unique() == 3 + 7
        assert_equal(found, want)


def test_nor_on_how_much_is_computed_at_once_or_kept_in_memory(tmp_path, monkeypatch):
    write_all(tmp_path / "run")
    want = tables(tmp_path / "run")
    monkeypatch.setattr(reduce, "SEGMENT_ROWS", 5)
    assert_equal(tables(tmp_path / "run"), want)
    monkeypatch.setattr(long, "PART_ROWS", 7)
    (tmp_path / "parts").mkdir()
    assert_equal(tables(tmp_path / "run", parts=tmp_path / "parts"), want)
    assert len(list((tmp_path / "parts").glob("*.parquet"))) > 10
    assert_equal(tables(tmp_path / "run"), want)


def test_nor_on_how_many_threads_share_the_work(tmp_path, monkeypatch):
    write_run(tmp_path / "run", vectors(3, 20 * PIECE), sizes=(20 * PIECE,))
    want = tables(tmp_path / "run")

    class Alone:
        def __init__(self, workers):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        map = map

    monkeypatch.setattr(spread, "ThreadPoolExecutor", Alone)
    assert_equal(tables(tmp_path / "run"), want)


def test_blocks_add_up_to_the_model(tmp_path):
    write_all(tmp_path / "run", size=12, sizes=(3, 4, 5))
    for table, names in zip(tables(tmp_path / "run"), (GEOMETRY, PATH), strict=True):
        keys = [name for name in ("pairing", "step") if name in table.columns]
        of_blocks = table.filter(pl.col("block").cast(pl.String) != MODEL)
        for name in set(names) - NOT_ADDITIVE:
            sums = of_blocks.group_by(keys, maintain_order=True).agg(
                pl.col(name).sum(), pl.col(name).null_count().alias("gone")
            )
            both = table.filter(block=MODEL).join(sums, on=keys, suffix=" of blocks", maintain_order="left")
            both = both.filter(pl.col(name).is_not_null())
            assert (both["gone"] == 0).all(), name
            scale = both[name].abs().max() or 0.0
            assert_allclose(both[f"{name} of blocks"], both[name], rtol=1e-13, atol=1e-14 * scale, err_msg=name)
            assert name not in GEOMETRY or not both.is_empty()
    path = tables(tmp_path / "run")[1]
    largest = path.filter(pl.col("block").cast(pl.String) != MODEL).group_by("step", maintain_order=True)
    assert largest.agg(pl.col("d_max").max())["d_max"].to_list() == path.filter(block=MODEL)["d_max"].to_list()


def test_the_order_of_the_parameters_does_not_matter(tmp_path):
    size = 2 * PIECE + 9
    order = np.random.default_rng(1).permutation(size)
    rows = vectors(13, size, streams=EVERYTHING)
    turned = {name: np.ascontiguousarray(v[:, order]) for name, v in rows.items()}
    for name, given in (("run", rows), ("turned", turned)):
        write_run(tmp_path / name, given, sizes=(size,), more={"epoch": EPOCHS})
    for one, other in zip(*(tables(tmp_path / n) for n in ("run", "turned")), strict=True):
        known = [c for c in one.columns if one[c].dtype == pl.Float64 and one[c].null_count() < len(one)]
        if "pairing" in one.columns:  # the random point is another one
            one, other = (t.filter(pl.col("pairing").cast(pl.String) != "reference:random") for t in (one, other))
        for name in known:
            scale = one[name].abs().max()
            assert_allclose(one[name].to_numpy(), other[name].to_numpy(), rtol=1e-11, atol=1e-12 * scale, err_msg=name)


def test_every_column_scales_with_its_units(tmp_path):
    """Twice the distances and half the losses: powers of two, so that nothing rounds."""
    rows = vectors(13, 9, streams=EVERYTHING)
    distance, loss = 2.0, 0.5
    scaled = {name: v * np.float32(distance if name == "x" else loss / distance) for name, v in rows.items()}
    for name, given in (("run", rows), ("scaled", scaled)):
        write_run(tmp_path / name, given, sizes=(9,), more={"epoch": EPOCHS})
    for one, other in zip(*(tables(tmp_path / n) for n in ("run", "scaled")), strict=True):
        for name in set(one.columns) & set(COLUMNS) - {"loss_x", "loss_y"}:
            factor = COLUMNS[name].units.factor(loss, distance)
            assert_allclose(other[name].to_numpy(), one[name].to_numpy() * factor, rtol=1e-12, err_msg=name)


def test_nothing_is_carried_from_one_attempt_to_the_next(tmp_path):
    rows = vectors(9, 7)
    write_run(tmp_path / "run", {s: v[:5] for s, v in rows.items()})
    writer = RunWriter(tmp_path / "run", manifest("run"), resume_at=5)
    for t in range(5, 9):
        record = {"time_ns": t, "finite": True, "loss": 1.0, "hyper:group0.lr": 0.1}
        writer.append(t, record, {s: v[t] for s, v in rows.items()})
    writer.close("finished")
    both = tables(tmp_path / "run", references=())
    write_run(tmp_path / "second", {s: v[5:] for s, v in rows.items()}, at=range(5, 9), more={"loss": [1.0] * 4})
    second = tables(tmp_path / "second", references=())
    for one, other in zip(both, second, strict=True):
        later = one.filter(pl.col("step") >= 5)
        assert_frame_equal(later.drop("loss_y", strict=False), other.drop("loss_y", strict=False), check_exact=True)


class Watch:
    """A pass that copies what it sees: ⟨x, x⟩, and ahead of it ‖x_{t+1} − x_t‖² and a number that is never there."""

    columns = ("m_m", "slip_slip", "g_m")
    ahead = ("slip_slip", "g_m")

    def __init__(self, sizes):
        self.edges = np.cumsum([0, *sizes])
        self.seen = []

    def over(self, segment):
        x = segment.streams["x"].astype(np.float64)
        self.seen.append((segment.before, segment.steps.tolist(), segment.graded, segment.records["step"].to_list()))
        first = x[:1] if segment.before is None else segment.before.streams["x"].astype(np.float64)[None]
        moved = np.diff(np.concatenate([first, x]), axis=0)
        parts = [np.stack([(v[:, a:b] ** 2).sum(axis=1) for a, b in zip(self.edges, self.edges[1:], strict=False)], 1)
                 for v in (x, moved, x)]  # fmt: skip
        missing = np.zeros((len(x), 3), bool)
        missing[:, 2] = True
        return np.stack(parts, axis=2), missing


@pytest.mark.parametrize("cut", [1, 4, 99])
def test_a_pass_sees_every_row_once_and_its_columns_stand_on_their_step(tmp_path, cut):
    at = [0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14]
    write_all(tmp_path / "run", chunk_rows=cut, at=at)
    watch = Watch((3, 4))
    path = tables(tmp_path / "run", passes=[watch])[1]
    assert [step for _, steps, _, _ in watch.seen for step in steps] == at
    assert all(steps == records for _, steps, _, records in watch.seen)
    assert [before is None for before, steps, _, _ in watch.seen if steps[0] in (0, 6)] == [True, True]
    assert sum(before is None for before, _, _, _ in watch.seen) == 2
    assert all(before is None or before.step + 1 == steps[0] for before, steps, _, _ in watch.seen)
    assert sum(graded for _, _, graded, _ in watch.seen) == len(at) - 1
    assert path["step"].unique(maintain_order=True).to_list() == at[:-1]
    for ours, theirs in (("m_m", "x_x"), ("slip_slip", "step_step")):
        assert path[ours].is_null().to_list() == path[theirs].is_null().to_list()
        assert_allclose(path[ours].drop_nulls(), path[theirs].drop_nulls(), rtol=1e-12)
    assert path["g_m"].null_count() == len(path)


def test_the_later_pass_has_a_column_that_two_give(tmp_path):
    write_all(tmp_path / "run")
    other = Watch((3, 4))
    other.columns, other.ahead = ("g_m", "m_m", "slip_slip"), ("m_m",)
    path = tables(tmp_path / "run", passes=[Watch((3, 4)), other])[1]
    assert_allclose(path["g_m"], path["x_x"], rtol=1e-12)
    assert_allclose(path["m_m"].drop_nulls(), path["step_step"].drop_nulls(), rtol=1e-12)
    assert path["slip_slip"].null_count() == len(path)


@pytest.mark.parametrize("columns", [("x_x",), ("nonsense",)])
def test_a_pass_with_a_column_that_is_not_free_is_refused(tmp_path, columns):
    write_all(tmp_path / "run")
    watch = Watch((3, 4))
    watch.columns = columns
    with pytest.raises(UsageError, match=f"Columns .*{columns[0]}"):
        tables(tmp_path / "run", passes=[watch])


def test_progress_counts_chunks(tmp_path):
    write_all(tmp_path / "run", chunk_rows=5)
    heard = []
    geometry(Trace(tmp_path / "run"), progress=lambda done, of: heard.append((done, of)))
    assert heard == [(0, 3), (1, 3), (2, 3), (3, 3)]
