"""On a CUDA device: the same neutrality and the same bits, and no step waits for the device.

``python -m tests.test_cuda`` runs it where only the tracer's own packages are installed, and then prints what recording
costs a ResNet-18 and a model of GPT-2's size.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch

from tracer import Tracer
from tracer.store import Trace, verify

try:
    import pytest

    pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
except ModuleNotFoundError:  # run as a script
    pass


def train(path=None, probes=(), steps=20, quiet_from=None, batches=False, scaled=False):
    """Weights after training, and x_t, g_t and z_t as the loop saw them; with ``quiet_from`` any wait is an error."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 256),
        torch.nn.BatchNorm1d(256),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.2),
        torch.nn.Linear(256, 8),
    ).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=scaled)  # one that leaves out updates by itself
    scaler = torch.amp.GradScaler("cuda", enabled=scaled)
    options = {"probes": probes, "record_batches": batches, "grad_scaler": scaler if scaled else None}
    tracer = None if path is None else Tracer(path, model, optimizer, **options)
    seen = []
    for step in range(steps):
        inputs = torch.randn(32, 64, device="cuda")
        optimizer.zero_grad()
        if step == quiet_from:
            torch.cuda.set_sync_debug_mode("error")

        def loss_of(inputs=inputs):
            with torch.autocast("cuda", torch.float16, enabled=scaled):
                return model(inputs).float().square().mean()

        given = {"tensors": {"inputs": inputs}} if batches else {}
        loss = loss_of() if tracer is None else tracer.loss(loss_of, **given)
        scaler.scale(loss).backward()
        if quiet_from is None:
            seen.append([torch.cat([t.flatten() for t in ts]).cpu().numpy() for ts in (*_now(model), [inputs])])
        inputs.fill_(-1)  # the loop may use its buffer again
        scaler.step(optimizer)
        scaler.update()
    torch.cuda.set_sync_debug_mode("default")
    if tracer is not None:
        tracer.close()
    return torch.cat([t.detach().flatten().double() for t in model.state_dict().values()]).cpu(), seen


def _now(model):
    parameters = list(model.parameters())
    return [p.detach() for p in parameters], [p.grad for p in parameters]


def test_weights_are_the_same_and_rows_are_what_the_loop_saw(tmp_path):
    alone, _ = train()
    watched, seen = train(tmp_path / "run", ["look_back"])
    assert torch.equal(alone, watched)
    chunks = list(Trace(tmp_path / "run").chunks())
    for stream, i in (("x", 0), ("g", 1)):
        rows = np.concatenate([c.streams[stream] for c in chunks])
        assert all(np.array_equal(rows[t], seen[t][i]) for t in range(len(seen)))
    assert verify(tmp_path / "run") == []


def test_minibatches_are_what_the_loop_saw_with_the_random_state_of_dropout(tmp_path):
    alone, _ = train()
    watched, seen = train(tmp_path / "run", ["look_back"], batches=True)
    assert torch.equal(alone, watched)
    for step, each in Trace(tmp_path / "run").batches_by_step(last=len(seen) - 1):
        [batch] = each
        assert np.array_equal(batch.tensors["inputs"].ravel(), seen[step][2])
        assert batch.weight == 1.0
        assert "torch:cuda:0" in batch.random
    assert verify(tmp_path / "run") == []


def test_a_traced_step_with_its_minibatch_does_not_wait_for_the_device(tmp_path):
    train(tmp_path / "run", steps=12, quiet_from=2, batches=True)
    assert len(list(Trace(tmp_path / "run").batches_by_step())) == 13


def test_a_traced_step_does_not_wait_for_the_device(tmp_path):
    train(tmp_path / "run", steps=12, quiet_from=2)
    assert Trace(tmp_path / "run").step_count == 13


def test_a_traced_step_with_a_gradient_scaler_does_not_wait_for_the_device(tmp_path):
    train(tmp_path / "run", steps=12, quiet_from=2, scaled=True)
    records = Trace(tmp_path / "run").records().to_pylist()
    assert len(records) == 13
    assert all(0 < r["loss"] < 10 for r in records[:-1]), "the scale of 65536 is divided out"


def test_weights_are_the_same_with_a_gradient_scaler(tmp_path):
    alone, _ = train(scaled=True)
    watched, _ = train(tmp_path / "run", ["look_back", "look_ahead"], scaled=True)
    assert torch.equal(alone, watched)
    assert verify(tmp_path / "run") == []


if __name__ == "__main__":
    for test in (
        test_weights_are_the_same_and_rows_are_what_the_loop_saw,
        test_minibatches_are_what_the_loop_saw_with_the_random_state_of_dropout,
        test_a_traced_step_with_its_minibatch_does_not_wait_for_the_device,
        test_a_traced_step_does_not_wait_for_the_device,
        test_a_traced_step_with_a_gradient_scaler_does_not_wait_for_the_device,
        test_weights_are_the_same_with_a_gradient_scaler,
    ):
        with tempfile.TemporaryDirectory() as folder:
            test(Path(folder))
        print(f"{test.__name__}: passed")
    from tests.benchmarks import bench_cuda

    with tempfile.TemporaryDirectory() as folder:
        bench_cuda.main(Path(folder), torch.device("cuda"))
