"""Minibatches kept as rows of a data set: replayed like those kept whole, from the very same data and no other."""

import numpy as np
import pytest
import torch

from analysis.replayed import Replayed
from tests import replay_problems
from tracer import Tracer, UsageError
from tracer.dataset import PIECE, description
from tracer.replay.replay import Asked, replay
from tracer.store import Trace, verify
from tracer.store.archive import archive
from tracer.store.restore import restore
from tracer.workloads import train
from tracer.workloads.named import data_of

HERE = ["tests.replay_problems"]
DATA = {"inputs": torch.arange(12.0).reshape(6, 2), "labels": torch.arange(6)}


def record(path, rows=True, data=None, steps=4, **options):
    """Logistic regression on breast cancer, two micro-batches a step, the second with a tensor of its own."""
    problem = replay_problems.logistic
    whole = problem.data() if data is None else data
    random = np.random.default_rng(3)
    model = problem.build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    if rows:
        options["data"] = whole
    with Tracer(
        path, model, optimizer, record_batches=True, workload="tests.replay_problems:logistic", **options
    ) as tracer:
        for _ in range(steps):
            optimizer.zero_grad()
            for more in ({}, {"noise": torch.zeros(3)}):
                chosen = torch.from_numpy(random.choice(569, 32, replace=False))
                batch = {**{name: t[chosen] for name, t in whole.items()}, **more}
                given = {"rows": chosen, "tensors": more or None} if rows else {"tensors": batch}
                (tracer.loss(lambda b=batch: problem.loss(model, b), **given) / 2).backward()
            optimizer.step()
    return path


def test_rows_replay_as_whole_minibatches_do_bit_for_bit(tmp_path):
    found = {}
    for rows in (True, False):
        path = record(tmp_path / f"run-{rows}", rows)
        into = tmp_path / f"tables-{rows}"
        report = replay(path, Asked(references=["last"], gradients=True, profile=2), allow=HERE, into=into)
        assert report.agreement.bitwise
        found[rows] = Replayed(into).references().collect(), Replayed(into).profile().collect()
        assert not verify(path)
    assert all(a.equals(b) for a, b in zip(*found.values(), strict=True))
    first, second = Trace(tmp_path / "run-True").batches(0)
    assert (list(first.tensors), list(second.tensors)) == (["rows"], ["rows", "noise"])
    kept, whole = (sum(p.stat().st_size for p in (tmp_path / f"run-{r}").glob("*.batches")) for r in (True, False))
    assert kept < whole / 5


def test_built_in_workloads_keep_rows_and_an_archive_carries_what_knows_the_data_again(tmp_path):
    path = train("mlp", tmp_path / "run", steps=3, record_batches=True, rows=True, probes=())
    archive(path, tmp_path / "run.lemmata")
    again = restore(tmp_path / "run.lemmata", tmp_path / "again")
    trace = Trace(again)
    assert trace.manifest.data["tensors"] == {"inputs": "float32 (1797, 64)", "labels": "int64 (1797,)"}
    assert replay(again, Asked(references=["last"]), into=tmp_path / "tables").agreement.bitwise
    with pytest.raises(UsageError, match="keep minibatches whole"):
        data_of("gpt")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (lambda d: {**d, "inputs": d["inputs"].flip(0)}, "the same shapes with other numbers"),
        (lambda d: {name: t[:500] for name, t in d.items()}, "examples 500, recorded was 569"),
        (lambda d: {**d, "inputs": d["inputs"].float()}, r"'inputs': 'float32 \(569, 30\)'"),
        (lambda d: None, "has no data\\(\\)"),
    ],
)
def test_other_data_are_refused_before_anything_is_evaluated(tmp_path, monkeypatch, changed, says):
    path = record(tmp_path / "run")
    whole = replay_problems.breast_cancer()
    monkeypatch.setattr(replay_problems.Logistic, "data", lambda self: changed(whole))
    monkeypatch.setattr(replay_problems.Logistic, "loss", lambda self, model, batch: 1 / 0)
    with pytest.raises(UsageError, match=says):
        replay(path, Asked(references=["last"]), allow=HERE, into=tmp_path / "tables")


def test_a_fingerprint_is_of_the_numbers_in_their_order_and_of_nothing_else():
    known = description(DATA)["fingerprint"]
    same = {"labels": DATA["labels"].clone(), "inputs": DATA["inputs"].T.contiguous().T}
    assert description(same)["fingerprint"] == known
    for other in ({**DATA, "labels": DATA["labels"].flip(0)}, {**DATA, "labels": DATA["labels"].int()}):
        assert description(other)["fingerprint"] != known
    assert description({"x": DATA["inputs"], "labels": DATA["labels"]})["fingerprint"] != known
    large = torch.arange(PIECE // 4, dtype=torch.int64)
    assert description({"x": large})["fingerprint"] != description({"x": large.flip(0)})["fingerprint"]
    low = {"x": torch.ones(3, 2, dtype=torch.bfloat16), "y": torch.tensor([True, False, True])}
    assert description(low)["tensors"] == {"x": "bfloat16 (3, 2)", "y": "bool (3,)"}


@pytest.mark.parametrize(
    ("data", "rows", "tensors", "says"),
    [
        (None, torch.arange(2), None, "no data set was given there"),
        (DATA, torch.tensor([0, 6]), None, "has rows 0 to 5"),
        (DATA, torch.tensor([-1]), None, "has rows 0 to 5"),
        (DATA, torch.tensor([0.0]), None, "expected a tensor of integers"),
        (DATA, [0], None, "found|expected a tensor of integers"),
        (DATA, torch.arange(2), {"rows": torch.ones(1)}, "Rename it"),
        (DATA, None, None, "rows=indices stands for tensors"),
    ],
)
def test_wrong_rows_are_refused_at_the_call(tmp_path, data, rows, tensors, says):
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tracer = Tracer(tmp_path / "run", model, optimizer, record_batches=True, data=data)
    with pytest.raises(UsageError, match=says):
        tracer.loss(lambda: model(torch.ones(1, 2)).sum(), rows=rows, tensors=tensors)
    tracer.close()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({}, "expected a dictionary of tensors"),
        ({"a": torch.tensor(1.0)}, "expected a dictionary of tensors"),
        ({"a": torch.ones(2), "b": torch.ones(3)}, "expected as many in each"),
        ({"rows": torch.ones(2)}, "that of the rows"),
    ],
)
def test_what_is_no_data_set_is_refused_before_the_run_begins(tmp_path, data, says):
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UsageError, match=says):
        Tracer(tmp_path / "run", model, optimizer, record_batches=True, data=data)
    with pytest.raises(UsageError, match="goes with record_batches=True"):
        Tracer(tmp_path / "run", model, optimizer, data=DATA)
    assert not (tmp_path / "run").exists()


def test_a_run_does_not_go_on_with_other_data(tmp_path):
    record(tmp_path / "run")
    data = {name: t.flip(0) for name, t in replay_problems.breast_cancer().items()}
    with pytest.raises(UsageError, match="its data are not those of data="):
        record(tmp_path / "run", data=data, resume_at=4)
    record(tmp_path / "run", resume_at=4)
