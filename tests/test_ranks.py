"""Two processes that train together: one trace, of the minibatch they share."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests.training import digits, plain_net
from tracer import Tracer, UsageError
from tracer.store import Trace, verify

STEPS, EACH, COUNT = 8, 16, 2
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="starts processes with gloo")


def loss_on(model, chosen):
    inputs, labels = digits()
    return nn.functional.cross_entropy(model(inputs[chosen].double()), labels[chosen])


def train(rank, folder, probes, accumulate):
    """One process of two: trains its half of every minibatch, traced if there are probes to ask; saves its weights."""
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=COUNT)
    torch.manual_seed(0)
    model = DistributedDataParallel(plain_net().double())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    tracer = None if probes is None else Tracer(folder / "run", model, optimizer, probes=probes)
    torch.manual_seed(1 + rank)
    for _ in range(STEPS):
        optimizer.zero_grad()
        for part in range(accumulate):
            chosen = torch.randint(0, 1000, (EACH,))

            def loss_of(chosen=chosen):
                return loss_on(model, chosen)

            loss = (loss_of() if tracer is None else tracer.loss(loss_of)) / accumulate
            if part < accumulate - 1:
                with model.no_sync():
                    loss.backward()
            else:
                loss.backward()
        optimizer.step()
    if tracer is not None:
        tracer.close()
    torch.save(model.module.state_dict(), folder / f"weights{rank}")
    dist.destroy_process_group()


def together(folder, probes, accumulate=1):
    folder.mkdir()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.multiprocessing.start_processes(train, (folder, probes, accumulate), COUNT, start_method="spawn")
    return torch.load(folder / "weights0", weights_only=True)


def test_one_trace_of_the_minibatch_they_share_and_the_same_weights(tmp_path: Path) -> None:
    accumulate = 2
    alone = together(tmp_path / "alone", None, accumulate)
    watched = together(tmp_path / "watched", ["look_back", "look_ahead"], accumulate)
    assert all(torch.equal(alone[name], watched[name]) for name in alone)
    trace = Trace(tmp_path / "watched" / "run")
    assert verify(trace.path) == []
    records = trace.records().to_pylist()
    (chunk,) = trace.chunks()

    # the union of both halves, evaluated by hand at the recorded points
    draws = [torch.Generator().manual_seed(1 + rank) for rank in range(COUNT)]
    model = plain_net().double()
    for t in range(STEPS):
        chosen = torch.cat(
            [torch.randint(0, 1000, (EACH,), generator=draw) for _ in range(accumulate) for draw in draws]
        )
        asked = {"g": ("loss", t), "h": ("loss_previous", t - 1), "a": ("loss_next", t + 1)}
        for stream, (column, at) in asked.items():
            if at < 0:
                continue
            nn.utils.vector_to_parameters(torch.tensor(chunk.x[at]), model.parameters())
            loss = loss_on(model, chosen)
            gradient = torch.autograd.grad(loss, list(model.parameters()))
            want = torch.cat([g.flatten() for g in gradient]).numpy()
            assert records[t][column] == pytest.approx(loss.item(), rel=1e-12)
            assert np.allclose(chunk.streams[stream][t], want, rtol=1e-10, atol=1e-14)


def test_what_one_process_would_decide_alone_is_refused(tmp_path: Path) -> None:
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        model = plain_net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for options in ({"budget": 0.1}, {"when_full": "drop"}, {"on_failure": "continue"}):
            with pytest.raises(UsageError, match="2 processes train together"):
                Tracer(tmp_path / "run", model, optimizer, **options)
        with pytest.raises(UsageError, match="DistributedDataParallel"):
            Tracer(tmp_path / "run", model, optimizer, probes=["look_back"])
    finally:
        dist.destroy_process_group()
    assert not (tmp_path / "run").exists()


def test_sharded_parameters_are_refused(tmp_path: Path) -> None:
    from torch.distributed.tensor import Replicate, distribute_tensor, init_device_mesh

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        model = plain_net()
        mesh = init_device_mesh("cpu", (2,))
        for name, parameter in list(model[0].named_parameters()):
            model[0].register_parameter(name, nn.Parameter(distribute_tensor(parameter.data, mesh, [Replicate()])))
        with pytest.raises(UsageError, match="sharded over processes"):
            Tracer(tmp_path / "run", model, torch.optim.SGD(model.parameters(), lr=0.1))
    finally:
        dist.destroy_process_group()


def FakeStore():  # noqa: N802 - the class is not public before torch is asked for it
    from torch.testing._internal.distributed.fake_pg import FakeStore

    return FakeStore()
