"""One run computed by several processes: the same tables bit for bit, however many there are."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from torch import nn

from analysis.vectors.kernel import PIECE, cuts
from analysis.vectors.sharing import Task, Workers, compute
from analysis.vectors.spread import PARTS, parts_of, shares
from tests.by_hand import vectors, write_run
from tests.test_geometry_laws import EPOCHS, EVERYTHING, assert_equal, tables
from tests.training import train
from tracer.errors import FormatError
from tracer.store import Trace
from tracer.store.run_writer import RunWriter

STEPS = 13
SIZES = (3, 20 * PIECE + 5, 7, 50 * PIECE, 1)


def write(path, rows=None):
    """Every stream, epochs, a point alone at the end, in chunks of five steps; blocks cut into many parts."""
    rows = vectors(STEPS, sum(SIZES), streams=EVERYTHING) if rows is None else rows
    more = {"epoch": EPOCHS, "loss_next": [0.5] * STEPS}
    without = dict.fromkeys(EVERYTHING[1:], (STEPS - 1,))
    write_run(path, rows, at=range(95, 95 + STEPS), sizes=SIZES, more=more, without=without, chunk_rows=5)


def wide_net():
    return nn.Sequential(nn.Linear(64, 2048), nn.Tanh(), nn.Linear(2048, 10))


def one_after_the_other(count, before=None):
    def run(function, tasks):
        if before is not None:
            before(tasks)
        return [function(task) for task in tasks]

    return Workers(count, run)


def in_a_process():
    def run(function, tasks):
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            return list(pool.map(function, tasks))

    return Workers(2, run)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("shared") / "run"
    write(path)
    return path, tables(path)


def test_every_element_is_in_one_part_and_every_part_in_one_share(tmp_path):
    for sizes in ([5], [9] * 99, [PIECE] * 9, list(SIZES), [PIECE * 400]):
        pieces = cuts(sizes)
        parts = parts_of(pieces)
        assert np.array_equal(np.concatenate(parts), pieces)
        assert len(parts) == min(PARTS, max(1, sum(sizes) // (4 * PIECE)))
        for workers in (1, 2, 3, 16, 99):
            dealt = shares(pieces, workers, tmp_path)
            assert [number for share in dealt for number in range(share.first, share.stop)] == [*range(len(parts))]
            assert len(dealt) == min(workers, len(parts))
            assert dealt[0].columns.start == 0
            assert [share.columns.stop for share in dealt] == [share.columns.start for share in dealt[1:]] + [
                sum(sizes)
            ]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 99])
def test_the_tables_do_not_depend_on_how_many_share_the_work(run, tmp_path, count):
    path, want = run
    asked = []
    found = tables(path, workers=one_after_the_other(count, asked.extend), parts=tmp_path)
    assert_equal(found, want)
    assert len(asked) == min(count, PARTS)
    assert [number for task in asked for number in task.verify] == [0, 1, 2]
    assert not list(tmp_path.glob("share*"))


def test_nor_on_whether_it_is_another_process(run, tmp_path):
    path, want = run
    assert_equal(tables(path, workers=in_a_process(), parts=tmp_path), want)


def test_nor_are_the_moments_of_a_recorded_training(tmp_path):
    train(wide_net, "adamw", tmp_path / "run", steps=12, chunk_bytes=6 << 20)
    assert Trace(tmp_path / "run").chunk_count > 2
    want = tables(tmp_path / "run")
    assert want[1].filter(block="model")["mhat_e"].drop_nulls().len() == 12
    assert_equal(tables(tmp_path / "run", workers=one_after_the_other(3), parts=tmp_path), want)


def test_a_process_that_computes_a_share_needs_no_other_coordinates(tmp_path):
    """Its sums come out the same when everything else is something else."""
    (_, middle, _) = shares(cuts(list(SIZES)), 3, tmp_path)
    of = ("last", "ema", "tail_mean", "initial")
    found = []
    for name, elsewhere in (("one", 1), ("other", -3)):
        rows = vectors(STEPS, sum(SIZES), streams=EVERYTHING)
        for stream in rows.values():
            stream[:, : middle.columns.start] *= elsewhere
            stream[:, middle.columns.stop :] += elsewhere
        write(tmp_path / name, rows)
        compute(Task(tmp_path / name, of, middle, range(0)))
        found.append(middle.file.read_bytes())
    assert found[0] == found[1]
    assert len(found[0]) > 10_000


def test_damage_in_any_chunk_is_found_by_whoever_has_it_in_charge(tmp_path):
    write(tmp_path / "run")
    chunk = tmp_path / "run" / "chunk-000001.h5"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(FormatError, match=r"chunk-000001\.h5"):
        tables(tmp_path / "run", workers=one_after_the_other(3), parts=tmp_path)
    assert not list(tmp_path.glob("share*"))


def test_a_run_that_grows_meanwhile_is_computed_as_it_was_at_first(tmp_path):
    rows = {name: stream[:9] for name, stream in vectors(STEPS, sum(SIZES), streams=EVERYTHING).items()}
    write_run(tmp_path / "run", rows, sizes=SIZES, chunk_rows=5)
    want = tables(tmp_path / "run")
    trace = Trace(tmp_path / "run")

    def grow(tasks):
        writer = RunWriter(trace.path, trace.manifest, resume_at=9)
        record = {"time_ns": 9, "finite": True, "loss": 1.0, "hyper:group0.lr": 0.1}
        writer.append(9, record, {name: stream[0] for name, stream in rows.items()})
        writer.close("finished")

    assert_equal(tables(tmp_path / "run", workers=one_after_the_other(2, grow), parts=tmp_path), want)
