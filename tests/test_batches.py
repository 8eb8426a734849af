"""Minibatches in the trace are what the loss saw, as it saw it, and enough to evaluate it again."""

import random
import shutil

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tests.training import noisy_net, plain_net
from tracer import EveryNth, Tracer, UsageError
from tracer.batches import set_random
from tracer.store import Trace, verify
from tracer.store.minibatch import STORED


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def load(model, trace, row):
    """Put the model where the recorded step began."""
    points = np.concatenate([c.x for c in trace.chunks()])
    for p, block in zip(model.parameters(), trace.blocks, strict=True):
        p.data.copy_(torch.from_numpy(points[row, block.offset : block.offset + block.size].copy()).reshape(p.shape))


def one_step(path, tensors, model=None, **options):
    """The trace of one step whose loss is given ``tensors``."""
    torch.manual_seed(0)
    model = model or nn.Linear(2, 1)
    optimizer = sgd(model)
    with Tracer(path, model, optimizer, record_batches=True, **options) as tracer:
        tracer.loss(lambda: model(torch.ones(1, 2)).sum(), tensors=tensors).backward()
        optimizer.step()
    return Trace(path)


TENSORS = {
    "float32": torch.tensor([[1.5, -0.0], [float("nan"), float("inf")]]),
    "float64": torch.linspace(0, 1, 7, dtype=torch.float64),
    "float16": torch.tensor([1e-7, 6e4], dtype=torch.float16),
    "complex": torch.tensor([1 + 2j, 3j]),
    "conjugate": torch.tensor([1 + 2j, 3j]).conj(),
    "bool": torch.tensor([True, False, True]),
    "int8": torch.tensor([-128, 127], dtype=torch.int8),
    "int64": torch.tensor([2**62, -1]),
    "uint16": torch.tensor([65535, 0], dtype=torch.uint16),
    "number": torch.tensor(3.25),
    "empty": torch.empty(0, 5),
    "a column of another": torch.arange(12.0).reshape(3, 4)[:, 1],
    "expanded": torch.tensor([[2.0]]).expand(3, 3),
    "with a graph": (torch.ones(2, requires_grad=True) * 2),
}


def test_tensors_of_any_dtype_and_shape_come_back_bit_for_bit(tmp_path):
    [batch] = one_step(tmp_path / "run", TENSORS).batches(0)
    assert list(batch.tensors) == list(TENSORS)
    for name, t in TENSORS.items():
        expected = t.detach().resolve_conj().numpy()
        assert (batch.tensors[name].dtype, batch.tensors[name].shape) == (expected.dtype, expected.shape), name
        assert batch.tensors[name].tobytes() == expected.tobytes(), name
        assert batch.dtypes[name] == str(t.dtype).removeprefix("torch.")
    assert (batch.weight, batch.training, batch.exceptions, batch.random) == (1.0, True, (), None)


@pytest.mark.parametrize("dtype", [name for name, stored in STORED.items() if stored.name != name])
def test_what_numpy_does_not_know_is_kept_as_its_bits(tmp_path, dtype):
    bits = torch.arange(16).to(getattr(torch, STORED[dtype].name)).reshape(4, 4)
    [batch] = one_step(tmp_path / "run", {"t": bits.view(getattr(torch, dtype)).T}).batches(0)
    assert np.array_equal(batch.tensors["t"], bits.T.numpy())
    assert batch.dtypes == {"t": dtype}


def test_every_dtype_that_is_stored_is_one_of_torch_with_numbers_of_that_size():
    sizes = {name: torch.empty(0, dtype=getattr(torch, name)).itemsize for name in STORED}
    assert sizes == {name: stored.itemsize for name, stored in STORED.items()}


def test_tensors_are_copied_at_the_call_so_that_buffers_can_be_used_again(tmp_path):
    model = plain_net()
    optimizer = sgd(model)
    buffer = torch.empty(4, 64)
    seen = []

    def loss_of():
        buffer.mul_(2)  # augmentation in place: z_t is what came before
        return model(buffer).square().mean()

    with Tracer(tmp_path / "run", model, optimizer, record_batches=True) as tracer:
        for _ in range(4):
            seen.append(buffer.uniform_().clone())
            optimizer.zero_grad()
            tracer.loss(loss_of, tensors={"inputs": buffer}).backward()
            buffer.fill_(-1)
            optimizer.step()
    found = dict(Trace(tmp_path / "run").batches_by_step())
    assert all(np.array_equal(found[t][0].tensors["inputs"], seen[t]) for t in range(4))
    assert found[4] == [], "the closing row is a point without a minibatch"
    assert verify(tmp_path / "run") == []


def test_micro_batches_are_kept_in_order_with_the_weight_backward_gave_them(tmp_path):
    model, sizes, seen = plain_net(), (2, 3, 5), []
    optimizer = sgd(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    with Tracer(tmp_path / "run", model, optimizer, record_batches=True, grad_scaler=scaler) as tracer:
        for _ in range(3):
            optimizer.zero_grad()
            for size in sizes:
                seen.append(inputs := torch.rand(size, 64))
                loss = tracer.loss(lambda x=inputs: model(x).square().mean(), tensors={"inputs": inputs})
                scaler.scale(loss * (size / 10)).backward()
            scaler.step(optimizer)
            scaler.update()
    trace = Trace(tmp_path / "run")
    found = [batch for t in range(3) for batch in trace.batches(t)]
    assert all(np.array_equal(b.tensors["inputs"], s) for b, s in zip(found, seen, strict=True))
    assert [b.weight for b in found] == pytest.approx([0.2, 0.3, 0.5] * 3)
    losses = trace.records()["loss"].to_pylist()
    for t in range(3):
        load(model, trace, t)
        again = [model(torch.from_numpy(b.tensors["inputs"].copy())).square().mean().item() for b in trace.batches(t)]
        weights = [b.weight for b in trace.batches(t)]
        assert np.dot(weights, again) == pytest.approx(losses[t], rel=1e-6)


@pytest.mark.parametrize("drawing", ["dropout", "numpy", "numpy generator", "python", "python generator", "own torch"])
def test_a_loss_that_draws_random_numbers_comes_out_the_same_bit_for_bit(tmp_path, drawing):
    generators = [torch.Generator().manual_seed(1), np.random.default_rng(2), random.Random(3)]
    draws = {
        "dropout": lambda: 0.0,
        "numpy": lambda: np.random.normal(),
        "numpy generator": lambda: generators[1].normal(),
        "python": lambda: random.gauss(0, 1),
        "python generator": lambda: generators[2].gauss(0, 1),
        "own torch": lambda: torch.rand((), generator=generators[0]),
    }

    def loss_of(model, inputs, labels):
        noise = draws[drawing]()
        return cross_entropy(model(inputs) * (1 + noise), labels)

    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    model = nn.Sequential(nn.Linear(64, 16), nn.Dropout(0.5 if drawing == "dropout" else 0.0), nn.Linear(16, 10))
    optimizer = sgd(model)
    recorded = []
    with Tracer(tmp_path / "run", model, optimizer, record_batches=True, generators=generators) as tracer:
        for _ in range(3):
            z = {"inputs": torch.rand(8, 64), "labels": torch.randint(0, 10, (8,))}
            optimizer.zero_grad()
            loss = tracer.loss(lambda z=z: loss_of(model, **z), tensors=z)
            recorded.append(loss.item())
            loss.backward()
            optimizer.step()
    trace = Trace(tmp_path / "run")
    for t in (2, 0, 1):
        load(model, trace, t)
        [batch] = trace.batches(t)
        assert list(batch.random) == ["torch:cpu", "numpy", "python", "generators.0", "generators.1", "generators.2"]
        set_random(batch.random, generators)
        z = {name: torch.from_numpy(a.copy()) for name, a in batch.tensors.items()}
        assert loss_of(model, **z).item() == recorded[t]


def test_random_state_is_kept_only_where_the_loss_drew(tmp_path):
    model = nn.Sequential(nn.Linear(64, 4), nn.Dropout(0.5))
    optimizer = sgd(model)
    with Tracer(tmp_path / "run", model, optimizer, record_batches=True, probes=["look_back"]) as tracer:
        for step in range(4):
            model.train(step % 2 == 0)
            optimizer.zero_grad()
            inputs = torch.rand(2, 64)
            tracer.loss(lambda x=inputs: model(x).square().mean(), tensors={"inputs": inputs}).backward()
            optimizer.step()
    found = [Trace(tmp_path / "run").batches(t)[0] for t in range(4)]
    assert [b.random is not None for b in found] == [True, False, True, False]
    assert [b.training for b in found] == [True, False, True, False]


def test_flags_of_modules_and_autocast_are_kept(tmp_path):
    model = noisy_net()
    model[1].eval()
    optimizer = sgd(model)
    with Tracer(tmp_path / "run", model, optimizer, record_batches=True) as tracer:
        for on in (True, False):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=on):
                loss = tracer.loss(lambda: model(torch.ones(2, 1, 8, 8)).square().mean(), tensors={})
            loss.backward()
            optimizer.step()
    first, second = (Trace(tmp_path / "run").batches(t)[0] for t in range(2))
    assert (first.training, first.exceptions, first.autocast) == (True, ("1",), {"cpu": "bfloat16"})
    assert second.autocast == {}


def test_only_recorded_steps_keep_their_minibatch_and_indices_are_enough(tmp_path):
    model = plain_net()
    optimizer = sgd(model)
    data = torch.rand(50, 64)
    chosen = [torch.randperm(50)[:4] for _ in range(9)]
    with Tracer(tmp_path / "run", model, optimizer, record_batches=True, plan=EveryNth(4)) as tracer:
        for indices in chosen:
            optimizer.zero_grad()
            tracer.loss(lambda i=indices: model(data[i]).square().mean(), tensors={"indices": indices}).backward()
            optimizer.step()
    found = dict(Trace(tmp_path / "run").batches_by_step())
    assert [t for t, each in found.items() if each] == [0, 1, 4, 5, 8]
    assert all(np.array_equal(found[t][0].tensors["indices"], chosen[t]) for t in (0, 1, 4, 5, 8))


def test_a_step_that_the_scaler_skips_keeps_its_minibatch(tmp_path):
    model = plain_net()
    optimizer = sgd(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    with Tracer(tmp_path / "run", model, optimizer, record_batches=True, grad_scaler=scaler) as tracer:
        for step in range(3):
            optimizer.zero_grad()
            inputs = torch.full((2, 64), float("inf") if step == 1 else 1.0)
            loss = tracer.loss(lambda x=inputs: model(x).square().mean(), tensors={"inputs": inputs})
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    trace = Trace(tmp_path / "run")
    assert trace.records()["skipped"].to_pylist()[:3] == [None, True, None]
    assert [trace.batches(t)[0].tensors["inputs"][0, 0] for t in range(3)] == [1, np.inf, 1]


def test_a_loss_whose_evaluation_failed_leaves_no_micro_batch(tmp_path):
    model = plain_net()
    optimizer = sgd(model)

    def too_large():
        raise MemoryError

    with Tracer(tmp_path / "run", model, optimizer, record_batches=True) as tracer:
        with pytest.raises(MemoryError):
            tracer.loss(too_large, tensors={"inputs": torch.ones(8)})
        tracer.loss(lambda: model(torch.ones(1, 64)).sum(), tensors={"inputs": torch.ones(4)}).backward()
        optimizer.step()
    assert [b.tensors["inputs"].shape for b in Trace(tmp_path / "run").batches(0)] == [(4,)]


class TestWrongUse:
    def test_tensors_and_record_batches_go_together(self, tmp_path):
        model = plain_net()
        with (
            Tracer(tmp_path / "run", model, sgd(model), record_batches=True) as tracer,
            pytest.raises(UsageError, match=r"go together; found tensors=None and record_batches=True"),
        ):
            tracer.loss(lambda: model(torch.ones(1, 64)).sum())
        with (
            Tracer(tmp_path / "other", model, sgd(model)) as tracer,
            pytest.raises(UsageError, match=r"go together; found tensors=... and record_batches=False"),
        ):
            tracer.loss(lambda: model(torch.ones(1, 64)).sum(), tensors={"inputs": torch.ones(1)})

    @pytest.mark.parametrize(
        ("tensors", "found"),
        [
            ({"inputs": [1, 2]}, r"tensors\['inputs'\] is a list; expected a tensor.*torch.as_tensor"),
            ({"inputs": np.ones(2)}, "is a ndarray; expected a tensor"),
            ({5: torch.ones(1)}, "tensors has the name 5"),
            ({"": torch.ones(1)}, "tensors has the name ''"),
            ({"inputs": torch.eye(2).to_sparse()}, "stored are dense tensors"),
            ({"inputs": torch.ones([1] * 33)}, "of 33 dimensions; stored are dense tensors of up to 32"),
        ],
    )
    def test_what_is_not_stored_is_refused_at_once(self, tmp_path, tensors, found):
        with pytest.raises(UsageError, match=found):
            one_step(tmp_path / "run", tensors)

    def test_a_step_whose_loss_the_tracer_did_not_see(self, tmp_path):
        model = plain_net()
        optimizer = sgd(model)
        model(torch.ones(1, 64)).sum().backward()
        with (
            Tracer(tmp_path / "run", model, optimizer, record_batches=True),
            pytest.raises(UsageError, match=r"loss\(\) was called 0 times"),
        ):
            optimizer.step()

    def test_a_disk_without_room_is_named_at_the_first_step_when_sizes_are_known(self, tmp_path, monkeypatch):
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10_000_000))
        with pytest.raises(UsageError, match=r"100 steps of 40\d kB.*has 10 MB left.*or indices"):
            one_step(tmp_path / "run", {"inputs": torch.ones(100_000)}, steps=100)
        one_step(tmp_path / "small", {"indices": torch.ones(100)}, steps=100)
        with pytest.raises(UsageError, match="1,000,000 steps"):
            one_step(tmp_path / "other", {}, steps=1_000_000)
