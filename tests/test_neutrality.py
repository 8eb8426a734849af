"""Training with the tracer is bit for bit the training without it, in every style people train."""

import copy
import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from tests.styles import STYLES, run
from tests.training import noisy_net
from tracer import Tracer, Untraced, scaling, surroundings
from tracer.certificate import first_difference, state_of
from tracer.probe import Move, ask, frozen
from tracer.store import Trace, verify
from tracer.surroundings import Surroundings

# torch's own compiler imports deprecated parts of torch
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")

PROBES = ["look_back", "look_ahead"]


def without(style):
    return state_of(*run(STYLES[style], lambda model, optimizer, **options: Untraced("", model, optimizer, **options)))


@pytest.mark.parametrize("style", STYLES)
def test_weights_gradients_buffers_optimizer_state_and_random_streams_do_not_change(tmp_path, style):
    without(style)  # once before: what is imported on first use may draw random numbers
    alone = without(style)

    def tracer_for(model, optimizer, **options):
        return Tracer(tmp_path / "run", model, optimizer, probes=PROBES, **options)

    watched = state_of(*run(STYLES[style], tracer_for))
    assert first_difference(alone, watched) is None
    trace = Trace(tmp_path / "run")
    records = trace.records().to_pylist()
    assert not verify(tmp_path / "run")
    trained = [r for r in records[:-1] if not r["skipped"]]
    assert len(trained) >= 6
    assert all(r["finite"] and r["has_g"] and r["has_a"] for r in trained)
    assert [r["has_h"] for r in records[1:-1]] == [
        not r["skipped"] and not before["skipped"] for before, r in pairwise(records[:-1])
    ]
    assert all(not r["finite"] for r in records if r["skipped"])
    assert any(r["skipped"] for r in records) == ("skipped" in style)


@pytest.mark.parametrize("style", [style for style in STYLES if "scaler" in style or "skipped" in style])
def test_a_loss_scale_that_only_the_device_knows_gives_the_same_bits(tmp_path, monkeypatch, style):
    alone = without(style)

    def tracer_for(model, optimizer, **options):
        return Tracer(tmp_path / name, model, optimizer, probes=PROBES, **options)

    found = []
    for name, known in (("known", True), ("unknown", False)):
        monkeypatch.setattr(scaling, "on_host", lambda scale, known=known: known)
        assert first_difference(alone, state_of(*run(STYLES[style], tracer_for))) is None
        monkeypatch.undo()
        trace = Trace(tmp_path / name)
        records = [{k: v for k, v in r.items() if k != "time_ns"} for r in trace.records().to_pylist()]
        rows = [(s, row.tobytes()) for c in trace.chunks() for s, rows in c.streams.items() for row in rows]
        found.append((records, rows))
    assert str(found[0]) == str(found[1])
    assert len(found[0][1]) > 20


def test_a_step_left_out_is_noticed_without_asking_for_the_scale(tmp_path, monkeypatch):
    def ask(scaler):
        pytest.fail("this waits for the device")

    def tracer_for(model, optimizer, grad_scaler):
        grad_scaler.scale(torch.ones(1))  # so that it has a scale
        tracer = Tracer(tmp_path / "run", model, optimizer, grad_scaler=grad_scaler)
        monkeypatch.setattr(scaling, "on_host", lambda scale: False)
        monkeypatch.setattr(torch.amp.GradScaler, "get_scale", ask)
        return tracer

    run(STYLES["autocast_with_clipping_accumulation_and_a_skipped_step"], tracer_for)
    records = Trace(tmp_path / "run").records().to_pylist()
    assert [r["step"] for r in records if r["skipped"]] == [2]


def test_an_update_of_the_scaler_for_another_optimizer_is_no_step_left_out(tmp_path):
    nets = nn.Linear(3, 1), nn.Linear(3, 1)
    other, mine = (torch.optim.SGD(net.parameters(), lr=0.1) for net in nets)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
    with Tracer(tmp_path / "run", nets[1], mine, grad_scaler=scaler) as tracer:
        for _ in range(5):
            other.zero_grad(), mine.zero_grad()
            first = tracer.loss(lambda: nets[1](torch.ones(2, 3)).square().mean())
            scaler.scale(nets[0](torch.ones(2, 3)).square().mean()).backward()
            scaler.step(other), scaler.update()
            scaler.scale(first).backward()
            scaler.scale(tracer.loss(lambda: nets[1](torch.zeros(2, 3)).square().mean())).backward()
            scaler.step(mine), scaler.update()
    assert [r["skipped"] for r in Trace(tmp_path / "run").records().to_pylist()] == [None] * 6


@pytest.mark.parametrize("style", STYLES)
def test_the_comparison_notices_a_tracer_that_does_not_put_a_weight_back_exactly(style):
    class Careless(Untraced):
        losses = 0

        def loss(self, closure, **given):
            self.losses += 1
            if self.losses == 3:
                max(self._parameters(), key=torch.numel).data.mul_(1.001)
            return super().loss(closure, **given)

    careless = state_of(*run(STYLES[style], lambda *given, **options: Careless("", *given, **options)))
    assert first_difference(without(style), careless) is not None


@pytest.mark.parametrize("style", STYLES)
def test_the_comparison_notices_a_tracer_that_draws_one_random_number(style):
    class Greedy(Untraced):
        def loss(self, closure, **given):
            torch.rand(1)
            return super().loss(closure, **given)

    greedy = state_of(*run(STYLES[style], lambda *given, **options: Greedy("", *given, **options)))
    assert first_difference(without(style), greedy) is not None


def test_a_probe_puts_back_parameters_grad_flags_buffers_attributes_and_generators():
    model = noisy_net()
    model.calls, model.memory = 0, torch.zeros(3)
    parameters = list(model.parameters())
    for p in parameters:
        p.grad = torch.ones_like(p)
    before = [p.detach().clone() for p in parameters]
    grads = [p.grad for p in parameters]
    versions = [p._version for p in parameters]
    buffers = {name: (b, b.clone()) for name, b in model.named_buffers()}
    mine = [torch.Generator(), np.random.default_rng(0), random.Random(0)]
    states = mine[0].get_state(), mine[1].bit_generator.state, mine[2].getstate()

    def closure():
        model.eval()
        model.train()
        model.calls += 1
        model.memory += 1
        model.new = 3
        torch.rand(1, generator=mine[0]), mine[1].random(), mine[2].random()
        loss = model(torch.rand(8, 1, 8, 8)).square().mean()
        model[1].running_mean = torch.full((4,), 7.0)  # some modules assign a new tensor
        model.eval()
        return loss

    surroundings = Surroundings(model, parameters, mine)
    loss, found = ask(closure, parameters, surroundings, at=Move(parameters, [p.detach() + 1 for p in parameters]))
    assert torch.isfinite(loss)
    assert any(f.abs().sum() > 0 for f in found)
    assert all(torch.equal(a, p) for a, p in zip(before, parameters, strict=True))
    assert all(g is p.grad and (g == 1).all() for g, p in zip(grads, parameters, strict=True))
    assert versions == [p._version for p in parameters]
    assert all(m.training for m in model.modules())
    assert model.calls == 0
    assert not model.memory.any()
    assert not hasattr(model, "new")
    assert torch.equal(states[0], mine[0].get_state())
    assert states[1:] == (mine[1].bit_generator.state, mine[2].getstate())
    for name, b in model.named_buffers():
        assert b is buffers[name][0]
        assert torch.equal(b, buffers[name][1])


def test_a_probe_that_fails_puts_everything_back():
    model = noisy_net()
    parameters = list(model.parameters())
    before = [p.detach().clone() for p in parameters]

    def closure():
        model.eval()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask(closure, parameters, Surroundings(model, parameters), at=Move(parameters, [p + 1 for p in before]))
    assert all(torch.equal(a, p) for a, p in zip(before, parameters, strict=True))
    assert model.training


def test_surroundings_put_back_the_streams_of_torch_numpy_and_python():
    model = noisy_net()
    with Surroundings(model, model.parameters()).kept():
        first = torch.rand(1), np.random.random(), random.random()
    assert first == (torch.rand(1), np.random.random(), random.random())


@pytest.mark.parametrize("bit_generator", [np.random.MT19937, np.random.PCG64])
@pytest.mark.parametrize("draws", [0, 1, 2])  # normal numbers come in twos, and the second is kept
@pytest.mark.parametrize("inside", [np.random.normal, np.random.random, lambda: np.random.seed(5), lambda: None])
def test_surroundings_put_back_numpys_generator_whatever_its_state(bit_generator, draws, inside):
    before = np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(bit_generator(3))
        np.random.normal(size=draws)
        expected = copy.deepcopy(np.random.mtrand._rand).normal(size=5)
        with Surroundings(noisy_net(), []).kept():
            inside()
        assert np.array_equal(np.random.normal(size=5), expected)
    finally:
        np.random.set_bit_generator(before)


def test_any_draw_from_numpys_generator_shows_in_its_words():
    for _ in range(1300):  # twice around
        before = surroundings._words()
        np.random.bytes(4)
        assert surroundings._words() != before


def test_surroundings_take_away_a_buffer_that_was_added():
    model = noisy_net()
    names = [name for name, _ in model.named_buffers()]
    with Surroundings(model, []).kept():
        model[1].register_buffer("extra", torch.zeros(2))
    assert [name for name, _ in model.named_buffers()] == names


def test_a_frozen_closure_keeps_its_minibatch_and_keeps_assignments_to_itself():
    batch, calls = torch.tensor(1.0), 0

    def closure():
        nonlocal calls
        calls += 1
        return batch * 2

    kept = frozen(closure)
    batch = torch.tensor(5.0)
    assert (kept(), closure()) == (2, 10)
    assert calls == 1


def test_a_probe_and_training_do_not_take_each_others_weights_from_the_cache_of_an_autocast_region():
    model = nn.Linear(4, 4)
    inputs = torch.rand(2, 4)
    parameters = list(model.parameters())
    there = [p.detach() + 1 for p in parameters]
    with torch.autocast("cpu", torch.bfloat16):
        here_expected = model(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        there_expected = nn.functional.linear(inputs, *there).sum()
    for before in (False, True):
        with torch.autocast("cpu", torch.bfloat16):
            if before:
                model(inputs)
            loss, _ = ask(
                lambda: model(inputs).sum(), parameters, Surroundings(model, parameters), at=Move(parameters, there)
            )
            assert torch.equal(loss, there_expected)
            assert torch.is_autocast_cache_enabled()
            assert torch.equal(here_expected, model(inputs))
