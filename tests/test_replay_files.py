"""A replay that is killed goes on; what is half written, stale or not the recorded loss is not believed."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from analysis.replayed import Replayed
from tests import replay_problems
from tests.replay_problems import record
from tracer import FormatError, Tracer, UsageError
from tracer.errors import LemmataError
from tracer.processes import serve_parent
from tracer.replay import replay as module
from tracer.replay.points import references
from tracer.replay.replay import Asked, replay
from tracer.replay.source import Source
from tracer.store import Trace
from tracer.store.lock import Lock
from tracer.store.replays import Results

HERE = ["tests.replay_problems"]
EVERYTHING = {"references": ["initial"], "gradients": True, "profile": 2}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return record(tmp_path_factory.mktemp("replay") / "run", "quadratic", 30, 0.3)


def ask(path, into, **asked):
    return replay(path, Asked(**asked), allow=HERE, into=into)


@pytest.fixture
def evaluations(monkeypatch):
    """How often the quadratic's loss was evaluated so far."""
    made = []
    loss = replay_problems.Quadratic.loss
    monkeypatch.setattr(
        replay_problems.Quadratic, "loss", lambda self, model, batch: made.append(1) or loss(self, model, batch)
    )
    return made


KILLED = """
import os, signal, sys
from pathlib import Path
from tracer.replay import replay as module

module.SEAL_STEPS = 4
path, into = map(Path, sys.argv[1:])

def kill(table, done, total):
    if (table, done) == ("profile", 17):
        os.kill(os.getpid(), signal.SIGKILL)

asked = module.Asked(references=["initial"], gradients=True, profile=2)
module.replay(path, asked, allow=["tests.replay_problems"], into=into, progress=kill)
"""


def test_a_killed_replay_goes_on_where_it_stopped(path, tmp_path, evaluations):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), str(killed)], cwd=root, check=False)
    assert done.returncode == -signal.SIGKILL
    found = Replayed(killed)
    assert found.tables == {"repeat": True, "reference:initial": True, "profile": False}
    assert found.profile().select(pl.col("step").unique()).collect()["step"].sort().to_list() == list(range(1, 17))
    assert not (killed / "replay.parquet").exists(), "it appears when all references are there"
    ask(path, killed, **EVERYTHING)
    assert len(evaluations) == (29 - 16) * 7
    ask(path, whole, **EVERYTHING)
    for table in ("profile", "references", "losses"):
        again, once = (getattr(Replayed(into), table)().collect() for into in (killed, whole))
        assert again.equals(once), table
    assert (killed / "replay.parquet").read_bytes() == (whole / "replay.parquet").read_bytes()


def test_asking_again_and_asking_more_evaluates_only_what_is_new(path, tmp_path, evaluations):
    ask(path, tmp_path, **EVERYTHING)
    before = len(evaluations)
    report = ask(path, tmp_path, **EVERYTHING)
    ask(path, tmp_path, references=["initial"])
    assert len(evaluations) == before
    assert report.tables == {"repeat": 30, "reference:initial": 90, "profile": 29 * 7 * 3}
    ask(path, tmp_path, references=["last"])
    assert len(evaluations) == before + 30
    pairs = pl.read_parquet(tmp_path / "replay.parquet")
    assert pairs.group_by("pairing").len().sort("pairing").rows() == [("reference:initial", 90), ("reference:last", 30)]
    assert pairs.select("pairing", "step", "block").is_unique().all()


def test_a_half_written_part_is_not_seen_and_a_damaged_one_is_refused(path, tmp_path):
    ask(path, tmp_path, references=["initial"])
    [part] = [p for p in (tmp_path / "replay").glob("*.parquet") if pl.read_parquet(p).width == 11]
    half = part.with_name(part.name + ".aside")
    half.write_bytes(part.read_bytes()[:100])
    assert Replayed(tmp_path).references().collect().height == 30
    ask(path, tmp_path, references=["initial"])
    assert not half.exists()
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(FormatError, match="hash does not match"):
        Replayed(tmp_path).references()
    part.unlink()
    (tmp_path / "replay" / "index.json").write_text('{"version": 2}')
    with pytest.raises(FormatError, match="of another version"):
        Replayed(tmp_path)


def test_nothing_replayed_is_empty_tables(tmp_path):
    found = Replayed(tmp_path, "any")
    assert (found.noise, found.tables) == (None, {})
    tables = (found.losses, found.references, found.profile, found.segments, found.allocation, found.block_gaps,
              found.jensen, found.full_batch, found.sharpness, found.critical)  # fmt: skip
    assert [table().collect().height for table in tables] == [0] * 10


def test_results_of_a_run_that_went_on_are_stale(tmp_path):
    path = record(tmp_path / "run", "quadratic", 5, 0.3)
    ask(path, tmp_path, references=["last"], profile=2)
    record(path, "quadratic", 5, 0.3, resume_at=6)
    with pytest.raises(FormatError, match="when the run held other steps"):
        Replayed(tmp_path, Trace(path).digest)
    ask(path, tmp_path, profile=2)
    assert not (tmp_path / "replay.parquet").exists(), "the last point is another one now"
    found = Replayed(tmp_path, Trace(path).digest)
    assert set(found.tables) == {"repeat", "profile"}
    assert found.segments().collect()["step"].to_list() == [1, 2, 3, 4, 7, 8, 9, 10], "no pair joins two attempts"
    parts = {p.name[:16] for p in (tmp_path / "replay").glob("*.parquet")}
    assert len(parts) == 2, "those of the run as it was are gone"


def test_another_loss_is_refused_and_what_is_accepted_says_so(path, tmp_path):
    def other(**how):
        asked = Asked(references=["initial"])
        return replay(path, asked, workload="tests.replay_problems:another", into=tmp_path, **how)

    with pytest.raises(
        LemmataError, match=r"differ from the recorded ones by .* This is not the loss that was recorded"
    ):
        other()
    assert set(Replayed(tmp_path).tables) == {"repeat"}
    assert Replayed(tmp_path).noise > 0.01
    assert "accepted on request" in other(accept_disagreement=True).warning


def test_gradients_that_differ_are_told(path, tmp_path, monkeypatch):
    loss = replay_problems.Quadratic.loss

    def detached(self, model, batch):
        return loss(self, model, batch) + (model().sum() - model().sum().detach())

    monkeypatch.setattr(replay_problems.Quadratic, "loss", detached)
    report = ask(path, tmp_path)
    assert report.agreement.sigma < 1e-15
    assert "replayed gradients differ" in report.warning


def test_another_model_is_refused(path, tmp_path):
    with pytest.raises(UsageError, match=r"2 of 2 recorded parameters|1 of 2 recorded parameters do not fit"):
        replay(path, Asked(), workload="tests.replay_problems:other_shape", into=tmp_path)


def small(path, dtype=torch.float32, **options):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Tracer(path, model, optimizer, **{"record_batches": True, **options}) as tracer:
        for _ in range(3):
            optimizer.zero_grad()
            given = {"tensors": {"inputs": torch.ones(2, 2, dtype=dtype)}} if tracer._batches.record else {}
            tracer.loss(lambda: model(torch.ones(2, 2, dtype=dtype)).square().mean(), **given).backward()
            optimizer.step()
    return path


class Low:
    def build(self):
        return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)).to(torch.bfloat16)

    def loss(self, model, batch):
        return model(batch["inputs"]).square().mean()


low = Low()


class Counting(Low):
    """A forward pass changes a buffer that the loss reads."""

    def build(self):
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        model.register_buffer("count", torch.zeros(()))
        return model

    def loss(self, model, batch):
        model.count += 1
        return model.count * super().loss(model, batch)


counting = Counting()


def test_buffers_are_put_back_after_each_evaluation(tmp_path):
    model = counting.build()
    batch = {"inputs": torch.ones(2, 2)}
    with Tracer(tmp_path / "run", model, torch.optim.SGD(model.parameters(), lr=0.1), record_batches=True) as tracer:
        tracer.loss(lambda: counting.loss(model, batch), tensors=batch).backward()
        tracer._subject.optimizer.step()
    asked = Asked(references=["initial"], gradients=True)
    report = replay(tmp_path / "run", asked, workload=f"{__name__}:counting", into=tmp_path / "t")
    assert report.agreement.bitwise
    found = Replayed(tmp_path / "t").references().filter(block="model").collect()
    assert found["loss_y"].to_list() == Trace(tmp_path / "run").records()["loss"].to_pylist()[:1]


def test_points_that_a_16_bit_model_cannot_stand_at_are_refused(tmp_path):
    path = small(tmp_path / "run", torch.bfloat16)
    name = f"{__name__}:low"
    report = replay(path, Asked(references=["last", "initial"], gradients=True), workload=name, into=tmp_path / "t")
    assert report.agreement.bitwise
    with pytest.raises(UsageError, match="none that it can stand at"):
        replay(path, Asked(references=["random"]), workload=name, into=tmp_path / "t")


@pytest.mark.parametrize(
    ("options", "asked", "says"),
    [
        ({"record_batches": False}, {}, "recorded without minibatches.*--batches"),
        ({"blocks": ["0.*"]}, {}, "3 trained parameters were not recorded"),
        ({}, {"references": ["nearest"]}, "'nearest' is not known"),
        ({}, {"references": ["epoch_last"]}, "no epochs were recorded"),
        ({}, {"full_batch": 2}, r"has no full_data\(\)"),
        ({}, {"every": 0}, "every=0; expected a whole number of at least 1"),
        ({}, {"sharpness": -1}, "sharpness=-1"),
    ],
)
def test_what_cannot_be_replayed_is_refused(tmp_path, monkeypatch, options, asked, says):
    monkeypatch.setattr(Low, "build", lambda self: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)))
    path = small(tmp_path / "run", **options)
    with pytest.raises(UsageError, match=says):
        replay(path, Asked(**asked), workload=f"{__name__}:low", into=tmp_path / "t")


def test_two_processes_do_not_replay_one_run(path, tmp_path):
    (tmp_path / "replay").mkdir()
    lock = Lock.take(tmp_path / "replay")
    try:
        with pytest.raises(UsageError, match="another process is replaying this run"):
            ask(path, tmp_path)
    finally:
        lock.release()


def test_the_recorded_number_of_threads_is_used_and_put_back(path, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "Engine", lambda *a: seen.append(torch.get_num_threads()) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ask(path, tmp_path)
    manifest = json.loads((path / "manifest.json").read_text())
    assert seen == [manifest["workload"]["threads"]]


def test_steps_in_any_order_and_across_chunks(tmp_path):
    path = record(tmp_path / "run", "quadratic", 12, 0.3, chunk_bytes=1)
    trace = Trace(path)
    x = np.concatenate([c.x for c in trace.chunks()])
    assert len(list(path.glob("chunk-*.h5"))) == 13
    source = Source(trace)
    for row in (5, 2, 11, 0, 12, 7, 8, 1):
        visit = source.visit(row, before=True, after=True)
        assert np.array_equal(visit.x, x[row])
        assert (visit.before is None) == (row == 0)
        assert (visit.after is None) == (row == 12)
        assert row == 0 or np.array_equal(visit.before, x[row - 1])
        assert row == 12 or np.array_equal(visit.after, x[row + 1])
        batches = trace.batches(row)
        assert [b.tensors["z"].tolist() for b in visit.batches] == [b.tensors["z"].tolist() for b in batches]


NAMES = ("last", "tail_mean", "ema", "epoch_last", "best_loss", "initial", "random")


@pytest.mark.parametrize("name", ["quadratic", "noisy"])
def test_reference_points_are_those_of_the_geometry(tmp_path, name):
    pytest.importorskip("analysis.vectors.references")
    from analysis.geometry import geometry

    path = record(tmp_path / "run", name, 45, 0.05)
    trace = Trace(path)
    wanted = (*NAMES, "run:run")
    pairs = geometry(trace, references=wanted).geometry.filter(block="model").collect()
    x = np.concatenate([c.x for c in trace.chunks()]).astype(float)
    for ours in references(Source(trace), wanted):
        rows = pairs.filter(pl.col("pairing").cast(pl.String) == f"reference:{ours.name}")
        squares = [((x[t] - ours.of(t // 10)) ** 2).sum() for t in rows["step"]]
        assert len(squares) == 45
        # a point that is one rounding off moves a squared distance by more than this
        assert_allclose(rows["d_d"].to_numpy(), squares, rtol=1e-12, atol=0, err_msg=ours.name)


def test_a_replay_completes_the_pairs_of_the_geometry(path, tmp_path):
    pytest.importorskip("analysis.replay")
    from analysis.geometry import geometry
    from analysis.tables import TableStore

    ask(path, tmp_path / "run", references=NAMES, gradients=True)
    tables, store = geometry(Trace(path)), TableStore(tmp_path, "run")
    for name in ("geometry", "path", "steps"):
        store.write(name, getattr(tables, name).collect())
    store.write_facts(tables.facts)
    pairs = store.tables().geometry.filter(pl.col("pairing").cast(pl.String).str.starts_with("reference:")).collect()
    filled = pairs.filter(block="model").select("loss_y", "gy_d", "dg_d", "dg_dg", "gy_gy", "gx_gy", "dg_norms")
    assert filled.height == 30 * len(NAMES)
    assert sum(filled.null_count().row(0)) == 0
    blocks = pairs.filter(pl.col("block").cast(pl.String) != "model")
    assert blocks["dg_dg"].null_count() == 0
    away = (pairs["dg_d"] - (pairs["gx_d"] - pairs["gy_d"])).abs().max()
    assert away < 1e-12, "d is the same vector on both sides"


def test_several_processes_find_what_one_finds_in_the_same_order(path, tmp_path):
    everything = {"references": ["initial"], "gradients": True, "profile": 2, "float64": 3, "sharpness": 15}
    for jobs in (1, 2):
        replay(path, Asked(**everything), allow=HERE, jobs=jobs, into=tmp_path / str(jobs))
    one, two = (Replayed(tmp_path / jobs) for jobs in ("1", "2"))
    assert one.tables == two.tables
    for name in one.tables:
        read = [
            Results(tmp_path / jobs).read(found.index.tables[name]["fingerprint"])
            for jobs, found in (("1", one), ("2", two))
        ]
        assert read[0].num_rows > 0
        assert read[0].equals(read[1]), name


def test_a_process_that_dies_is_an_error_and_none_is_left_behind(tmp_path):
    path = record(tmp_path / "run", "deadly", 30, 0.3)
    ask = {"workload": "tests.replay_problems:deadly", "into": tmp_path / "into", "jobs": 2}
    with pytest.raises(LemmataError, match=r"one of 2 processes died.*fewer --jobs"):
        replay(path, Asked(references=["initial"]), **ask)
    assert not multiprocessing.active_children()


def test_children_end_with_a_killed_parent(tmp_path):
    code = "from tests.test_replay_files import parent; parent()"
    root = Path(__file__).resolve().parents[1]
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=root) as running:
        child = int(running.stdout.readline())
        running.kill()
    for _ in range(600):
        if ended(child):
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the child waits for work for ever")


def ended(child):
    """Whether the process is gone, or would be if anybody asked for its exit code."""
    try:
        return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def parent():
    """Wait in a child that serves this process."""
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), serve_parent)
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(60)
