"""``lemmata replay``, as a user types it; archives carry the workload; CUDA where there is a device."""

import numpy as np
import pytest
import torch
from torch import nn

from analysis.replayed import Replayed
from tests.replay_problems import record
from tracer import Tracer, UsageError
from tracer.replay.engine import _refuse_foreign
from tracer.replay.replay import Asked, replay
from tracer.store import Trace
from tracer.store.archive import archive
from tracer.store.restore import restore

pytestmark = pytest.mark.usefixtures("empty_home")


def test_record_with_batches_then_replay(lemmata, empty_home):
    assert lemmata("record", "logistic", "--batches", "--steps", "8", "--run", "first")[0] == 0
    options = ("--references", "last,tail_mean", "--gradients", "--profile", "2", "--every", "2", "--full-batch")
    more = ("every=4", "--jensen", "4", "--critical", "4", "--block-gaps", "every=4", "--sharpness", "every=4")
    code, out, err = lemmata("replay", "first", *options, *more)
    assert (code, err) == (0, "")
    first, *tables, place = out.splitlines()
    assert first == "8 recorded losses replayed: bit for bit"
    assert tables == [
        "reference:last: 12 rows",
        "reference:tail_mean: 12 rows",
        "profile: 84 rows",
        "block_gaps: 4 rows",
        "jensen: 4 rows",
        "full_batch: 3 rows",
        "critical: 4 rows",
        "sharpness: 4 rows",
    ]
    assert place == str(empty_home / "tables" / "first")
    assert all(Replayed(empty_home / "tables" / "first").tables.values())
    code, _, err = lemmata("replay", "first", "--sharpness", "each=4")
    assert (code, err) == (2, "lemmata: --sharpness each=4: expected every=N, for instance every=50.\n")


def test_a_run_without_minibatches_says_how_to_record_them(lemmata):
    lemmata("record", "logistic", "--steps", "2", "--run", "first")
    code, _, err = lemmata("replay", "first")
    assert code == 2
    assert "recorded without minibatches" in err
    assert "--batches" in err


def test_a_warning_is_printed(lemmata, empty_home):
    record(empty_home / "runs" / "run", "quadratic", 4, 0.3)
    code, _, err = lemmata("replay", "run")
    assert (code, "--allow tests.replay_problems" in err) == (2, True)
    code, _, err = lemmata("replay", "run", "--workload", "tests.replay_problems:another")
    assert code == 1
    assert "This is not the loss that was recorded" in err
    code, out, err = lemmata(
        "replay", "run", "--workload", "tests.replay_problems:another", "--accept-disagreement", "--references", "last"
    )
    assert code == 0
    assert err.startswith("Warning: replayed losses differ")
    assert "σ_f = " in out
    assert lemmata("replay", "run", "--allow", "tests.replay_problems")[2] == ""


def test_archives_carry_the_name_of_the_workload(tmp_path):
    path = record(tmp_path / "run", "quadratic", 4, 0.3)
    archive(path, tmp_path / "packed.lemmata")
    back = restore(str(tmp_path / "packed.lemmata"), tmp_path / "restored")
    assert Trace(back).manifest.workload == Trace(path).manifest.workload
    report = replay(back, Asked(), allow=["tests.replay_problems"], into=tmp_path / "tables")
    assert report.agreement.bitwise


def test_random_numbers_of_cuda_are_not_drawn_on_the_processor():
    _refuse_foreign({"torch:cpu": np.zeros(1)}, torch.device("cpu"))
    with pytest.raises(UsageError, match="--device cuda"):
        _refuse_foreign({"torch:cuda:0": np.zeros(1)}, torch.device("cpu"))


class OnCuda:
    def build(self):
        return nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Dropout(0.3), nn.Linear(32, 1))

    def loss(self, model, batch):
        return model(batch["inputs"]).square().mean()


on_cuda = OnCuda()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_training_on_cuda_is_replayed_there(tmp_path):
    torch.manual_seed(0)
    model = on_cuda.build().cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    with Tracer(tmp_path / "run", model, optimizer, record_batches=True) as tracer:
        for _ in range(10):
            batch = {"inputs": torch.rand(16, 64, device="cuda")}
            optimizer.zero_grad()
            tracer.loss(lambda b=batch: on_cuda.loss(model, b), tensors=batch).backward()
            optimizer.step()
    asked = Asked(references=["last"], gradients=True, profile=2, sharpness=5)
    report = replay(tmp_path / "run", asked, workload=f"{__name__}:on_cuda", device="cuda", into=tmp_path / "tables")
    assert report.agreement.sigma < 1e-6
    assert report.agreement.gradient < 1e-4
