"""Training a second time answers at reference points as replaying stored minibatches does, and changes nothing."""

from functools import partial

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

from analysis.geometry import geometry
from analysis.measure import measure
from analysis.registry import metrics
from analysis.replay import with_replay
from analysis.replayed import Replayed
from analysis.tables import MODEL, Tables
from tests.replay_problems import record
from tests.styles import STYLES, run
from tracer import Tracer, UsageError
from tracer.certificate import first_difference, state_of
from tracer.errors import LemmataError
from tracer.replay.replay import Asked, replay
from tracer.replay.second_pass import SecondPass
from tracer.store import Trace

# torch's own compiler imports deprecated parts of torch
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")

REFERENCES = ["last", "epoch_last", "tail_mean"]


def again(path, name, steps, lr, into, references=REFERENCES, **how):
    return record(path, name, steps, lr, make=partial(SecondPass, references=references, into=into), **how)


@pytest.mark.parametrize(
    ("name", "how"), [("noisy", {}), ("noisy", {"parts": 3}), ("quadratic", {"optimizer": torch.optim.Adam})]
)
def test_what_it_finds_is_what_replay_finds_in_stored_minibatches(tmp_path, name, how):
    path = record(tmp_path / "run", name, 22, 0.05, **how)
    replay(path, Asked(references=REFERENCES, gradients=True), allow=["tests.replay_problems"], into=tmp_path / "asked")
    passed = again(path, name, 22, 0.05, tmp_path / "passed", **how)
    assert passed.warning is None
    asked, found = (Replayed(tmp_path / which, Trace(path).digest) for which in ("asked", "passed"))
    assert found.noise == 0.0
    bitwise = "parts" not in how  # replay begins each backward pass with the weight of its micro-batch
    kept = (pl.read_parquet(tmp_path / which / "replay.parquet") for which in ("asked", "passed"))
    assert_frame_equal(*kept, check_exact=bitwise, rel_tol=1e-4, abs_tol=1e-6)
    losses = [table.references().collect()["loss_y"] for table in (asked, found)]
    assert losses[0].equals(losses[1])


def test_a_run_without_minibatches_is_judged_towards_its_last_point(tmp_path):
    path = record(tmp_path / "run", "logistic", 80, 0.05, record_batches=False, workload=None)
    again(path, "logistic", 80, 0.05, tmp_path / "tables", ["last"], record_batches=False, workload=None)
    tables = geometry(Trace(path), references=["last"])
    found = with_replay(tables.geometry, pl.scan_parquet(tmp_path / "tables" / "replay.parquet"), MODEL)
    verdicts = {}
    for which, frame in (("before", tables.geometry), ("after", found)):
        rows = measure(metrics()["reference_gap"], Tables(frame, tables.path, tables.steps, tables.facts)).verdicts
        verdicts[which] = dict(rows.filter(pl.col("pairing") == "reference:last").select("claim", "status").iter_rows())
    assert verdicts["before"]["star-convex at every step"] == "NOT APPLICABLE"
    assert verdicts["after"]["star-convex at every step"] == "HOLDS"


@pytest.mark.parametrize("style", STYLES)
def test_training_is_left_as_it_is_and_is_recognised(tmp_path, style):
    def first(model, optimizer, **options):
        return Tracer(tmp_path / "run", model, optimizer, **options)

    def second(model, optimizer, **options):
        passes.append(
            SecondPass(tmp_path / "run", model, optimizer, references=["initial"], into=tmp_path / "tables", **options)
        )
        return passes[-1]

    passes = []
    recorded = state_of(*run(STYLES[style], first))
    assert first_difference(recorded, state_of(*run(STYLES[style], second))) is None
    (passed,) = passes
    assert passed.warning is None
    trace = Trace(tmp_path / "run")
    trained = [r["step"] for r in trace.records().to_pylist() if r["has_g"]]
    rows = Replayed(tmp_path / "tables", trace.digest).references().filter(block="model").collect()
    assert rows["step"].to_list() == trained
    at_start = rows.row(0, named=True)
    assert at_start["loss_y"] == pytest.approx(trace.records()["loss"][0].as_py(), rel=1e-6)
    if style != "gradient_noise_declared":  # whose recorded gradient has noise that is not of the loss
        recorded = float((next(trace.chunks()).g[0].astype(float) ** 2).sum())
        assert at_start["gy_gy"] == pytest.approx(recorded, rel=0.1 if "autocast" in style else 1e-5)


def test_another_training_is_refused_and_leaves_nothing_to_believe(tmp_path):
    path = record(tmp_path / "run", "quadratic", 40, 0.3)
    with pytest.raises(LemmataError, match="This is not the loss that was recorded"):
        again(path, "quadratic", 40, 0.3, tmp_path / "tables", seed=2)
    assert Replayed(tmp_path / "tables").tables == {}
    assert not (tmp_path / "tables" / "replay.parquet").exists()
    passed = again(path, "quadratic", 40, 0.3, tmp_path / "accepted", seed=2, accept_disagreement=True)
    assert "nothing here is about the recorded loss" in passed.warning


def test_a_second_training_that_ends_early_says_so_and_a_third_completes_it(tmp_path):
    path = record(tmp_path / "run", "quadratic", 12, 0.3)
    assert "5 recorded steps did not come by" in again(path, "quadratic", 7, 0.3, tmp_path / "tables").warning
    assert not (tmp_path / "tables" / "replay.parquet").exists()
    assert again(path, "quadratic", 12, 0.3, tmp_path / "tables").warning is None
    rows = Replayed(tmp_path / "tables").references().filter(pairing="reference:last").collect()
    assert rows["step"].to_list() == np.repeat(np.arange(12), 3).tolist()


def test_what_cannot_be_is_refused_before_training(tmp_path):
    path = record(tmp_path / "run", "quadratic", 3, 0.3)
    with pytest.raises(UsageError, match="Run the training that was recorded"):
        again(path, "logistic", 3, 0.3, tmp_path / "tables")
    with pytest.raises(UsageError, match="asks nothing"):
        again(path, "quadratic", 3, 0.3, tmp_path / "tables", [])
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Tracer(tmp_path / "part", model, optimizer, blocks=["weight"]) as tracer:
        tracer.loss(lambda: model(torch.ones(1, 2)).sum()).backward()
        optimizer.step()
    with pytest.raises(UsageError, match="Record all blocks"):
        SecondPass(tmp_path / "part", model, optimizer, references=["last"], into=tmp_path / "tables")
