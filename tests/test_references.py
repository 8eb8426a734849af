"""Reference points: where they are, which runs have them, and what a replay adds."""

import numpy as np
import polars as pl
import pytest
from numpy.testing import assert_allclose

from analysis.geometry import geometry
from analysis.tables import REFERENCE, REPLAYED, TableStore
from analysis.vectors.references import REFERENCES, find_points
from tests.by_hand import vectors, write_run
from tests.problems import Run
from tests.tables_by_hand import tables as by_hand
from tracer.errors import FormatError, UsageError
from tracer.store import Trace
from tracer.store import points as references

LOSSES = [3.0, 1.0, np.nan, 0.25, None, 0.25, 2.0, np.inf, 5.0, 4.0, 6.0, 7.0]
EPOCHS = [0, 0, 0, 1, 1, 1, 1, None, 2, 2, 2, None]


def write(path, steps=12, dtype="float64", **how):
    rows = vectors(steps, 7, dtype)
    how = {"more": {"epoch": EPOCHS[:steps], "loss": LOSSES[:steps]}, **how}
    write_run(path, rows, without=dict.fromkeys("gh", (steps - 1,)), **how)
    return rows["x"]


def points(path, wanted=REFERENCES):
    trace = Trace(path)
    found = find_points(trace, pl.DataFrame(pl.from_arrow(trace.records())), wanted)
    return dict(zip(found.names, found.vectors, strict=True)), found


@pytest.mark.parametrize("chunk_rows", [1, 5, 99])
def test_every_point_is_where_it_says(tmp_path, chunk_rows):
    x = write(tmp_path / "run", chunk_rows=chunk_rows)
    found, _ = points(tmp_path / "run")
    assert set(found) == set(REFERENCES)
    exponential = np.zeros(7)
    for point in x:
        exponential = 0.999 * exponential + 0.001 * point
    assert_allclose(found["ema"], exponential / (1 - 0.999**12), rtol=1e-13)
    assert_allclose(found["tail_mean"], x[-2:].mean(axis=0), rtol=1e-15)
    assert np.array_equal(found["last"], x[-1])
    assert np.array_equal(found["initial"], x[0])
    assert np.array_equal(found["best_loss"], x[3]), "the first of two that are equal; NaN and infinity are no losses"
    far = np.linalg.norm(x[-1] - x[0])
    assert np.linalg.norm(found["random"] - x[0]) == pytest.approx(far, rel=1e-12)
    assert abs((found["random"] - x[0]) @ (x[-1] - x[0])) < 0.99 * far**2
    assert np.array_equal(points(tmp_path / "run")[0]["random"], found["random"])


def test_points_stand_where_the_model_can_stand(tmp_path):
    write(tmp_path / "run", dtype="float32")
    assert {point.dtype for point in points(tmp_path / "run")[0].values()} == {np.dtype("float32")}


def test_a_long_exponential_mean_reads_the_points_that_count(tmp_path, monkeypatch):
    monkeypatch.setattr(references, "EMA", 0.99)
    steps = 2500
    x = vectors(steps, 2, streams=("x",))["x"]
    write_run(tmp_path / "run", {"x": x}, sizes=(2,))
    weights = 0.01 * 0.99 ** np.arange(steps)[::-1] / (1 - 0.99**steps)
    read = []
    rows = Trace.rows
    monkeypatch.setattr(Trace, "rows", lambda *args: read.append(args[2:]) or rows(*args))
    assert_allclose(points(tmp_path / "run", ("ema",))[0]["ema"], weights @ x.astype(np.float64), atol=2e-8)
    assert 0 < read[0][0] < steps - 1000, "the first points change no digit"


def test_each_step_is_paired_with_the_last_point_of_its_own_epoch(tmp_path):
    x = write(tmp_path / "run", chunk_rows=2)
    found = geometry(Trace(tmp_path / "run")).geometry.filter(pairing="reference:epoch_last").collect()
    ends = {0: 2, 1: 6, 2: 10}
    steps = [t for t in range(11) if EPOCHS[t] is not None]
    assert found["step"].to_list() == steps
    e = np.array([x[t] - x[ends[EPOCHS[t]]] for t in steps])
    ahead = np.array([x[t + 1] - x[t] for t in steps])
    assert_allclose(found["d_d"], (e * e).sum(axis=1), rtol=1e-14)
    assert_allclose(found["d_ahead"], (e * ahead).sum(axis=1), rtol=1e-13, atol=1e-15)
    assert found.filter(pl.col("step").is_in(list(ends.values())))["d_ahead"].to_list() == [0.0, 0.0, 0.0]


def test_an_epoch_that_comes_back_leaves_one_step_unknown(tmp_path):
    x = write(tmp_path / "run", more={"epoch": [0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, None]})
    found = geometry(Trace(tmp_path / "run")).geometry.filter(pairing="reference:epoch_last").collect()
    assert found["d_ahead"].is_null().to_list() == [t == 2 for t in range(11)]
    assert found["d_d"][2] == pytest.approx(((x[2] - x[10]) ** 2).sum())


def test_a_run_has_the_references_it_can_have(tmp_path):
    write_run(tmp_path / "run", vectors(4, 7), more={"loss": [None] * 4})
    facts = geometry(Trace(tmp_path / "run")).facts
    assert facts.references == ("last", "tail_mean", "ema", "initial", "random")


def test_the_last_reference_has_every_block_and_the_others_the_model(tmp_path):
    write(tmp_path / "run")
    pairs = geometry(Trace(tmp_path / "run")).geometry.collect().with_columns(pl.col("pairing").cast(pl.String))
    blocks = dict(pairs.group_by("pairing").agg(pl.col("block").n_unique()).iter_rows())
    others = {f"reference:{name}" for name in REFERENCES} - {"reference:last"}
    assert blocks == {"previous": 3, "reference:last": 3, "unpaired": 1, "next": 1, **dict.fromkeys(others, 1)}


def test_references_by_request(tmp_path):
    x = write(tmp_path / "run")
    other = vectors(5, 7, "float64", seed=1)
    write_run(tmp_path / "other", other)
    given = np.arange(7.0)
    np.save(tmp_path / "minimum.npy", given)
    names = ("run:other", f"point:{tmp_path / 'minimum.npy'}", "last")
    found = geometry(Trace(tmp_path / "run"), references=names)
    assert found.facts.references == ("run:other", "point:minimum", "last")
    run = Run(
        x=x[:11], g=vectors(12, 7, "float64")["g"][:11], h=None, loss=None, loss_previous=None, lr=None, final=x[11]
    )
    want = by_hand(
        Run(**{**vars(run), "loss": np.zeros(11), "lr": np.zeros(11)}),
        look_back=False,
        losses=False,
        references={"run:other": other["x"][-1], "point:minimum": given, "last": x[11]},
        pairings=(),
        blocks=(3, 4),
    )
    kind = pl.col("pairing").cast(pl.String)
    ours, theirs = (
        t.geometry.filter(kind.str.starts_with(REFERENCE)).with_columns(kind).drop("block", "loss_x").collect()
        for t in (found, want)
    )
    assert ours["pairing"].to_list() == theirs["pairing"].to_list()
    for name in ("d_d", "gx_d", "d_ahead", "d_norms"):
        assert_allclose(ours[name].to_numpy(), theirs[name].to_numpy(), rtol=1e-12, atol=1e-12)


def test_the_squared_norm_of_each_reference_stands_beside_its_pairs_and_nowhere_else(tmp_path):
    x = write(tmp_path / "run", chunk_rows=2)
    pairs = geometry(Trace(tmp_path / "run")).geometry.collect().with_columns(pl.col("pairing").cast(pl.String))
    for name, point in points(tmp_path / "run")[0].items():
        if name != "epoch_last":
            squares = pairs.filter(pairing=f"reference:{name}", block="model")["y_y"]
            assert_allclose(squares, point.astype(np.float64) @ point, rtol=1e-14)
    of_blocks = pairs.filter(pairing="reference:last", step=3)["y_y"]
    assert_allclose(of_blocks, [part @ part for part in (x[-1], x[-1][:3], x[-1][3:])], rtol=1e-14)
    ends = {0: 2, 1: 6, 2: 10}
    found = pairs.filter(pairing="reference:epoch_last")
    at = [x[ends[EPOCHS[t]]] for t in found["step"]]
    assert_allclose(found["y_y"], [point @ point for point in at], rtol=1e-14)
    assert pairs.filter(~pl.col("pairing").str.starts_with(REFERENCE))["y_y"].is_null().all()


@pytest.mark.parametrize(
    ("wanted", "error", "says"),
    [
        ("nearest", UsageError, "'nearest' is not known; expected run:ID, point:FILE or one of"),
        (
            "run:other",
            UsageError,
            "run:other: records 5 numbers in 1 tensors and 4 points; expected the 2 tensors of run",
        ),
        ("run:nobody", FormatError, "nobody"),
        ("run:../run", UsageError, "run"),
        (
            "point:short.npy",
            UsageError,
            r"short.npy: has shape \(3,\) and dtype float64; expected the 7 parameters of run",
        ),
        ("point:missing.npy", FormatError, "missing.npy: not readable as a .npy file"),
    ],
)
def test_a_reference_that_cannot_be_is_refused(tmp_path, monkeypatch, wanted, error, says):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "run")
    write_run(tmp_path / "other", vectors(4, 5), sizes=(5,))
    np.save("short.npy", np.zeros(3))
    with pytest.raises(error, match=says):
        geometry(Trace(tmp_path / "run"), references=(wanted,))


def test_a_replay_fills_what_the_vectors_leave_open(tmp_path):
    write(tmp_path / "run")
    tables = geometry(Trace(tmp_path / "run"))
    into = TableStore(tmp_path / "tables", "run")
    for name in ("geometry", "path", "steps"):
        into.write(name, getattr(tables, name))
    into.write_facts(tables.facts)
    before = into.tables().geometry.collect()
    assert before.equals(tables.geometry.collect())
    rows = {"pairing": ["reference:last", "reference:last", "previous", "reference:nowhere"], "step": [3, 99, 1, 3]}
    replayed = pl.DataFrame({**rows, "loss_y": [0.5, 1.0, 9.0, 2.0], "gy_d": [None, None, None, 1.0]})
    into.write("replay", replayed, {REPLAYED: "of the run before it went on"})
    assert into.tables().geometry.collect().equals(before)
    into.write("replay", replayed, {REPLAYED: tables.facts.digest})
    after = into.tables().geometry.collect()
    changed = after.with_row_index().filter(after["loss_y"].ne_missing(before["loss_y"]))
    assert changed.select(pl.col("pairing", "block").cast(pl.String), "step", "loss_y").rows() == [
        ("reference:last", "model", 3, 0.5)
    ]
    assert after.drop("loss_y").equals(before.drop("loss_y"))
