"""What the tracer records, against what a training loop knows of itself."""

import time

import numpy as np
import pytest
import torch
from torch import nn

from tests.training import noisy_net, plain_net, train
from tracer import Tracer, UsageError, recorder
from tracer.store import Trace
from tracer.store.run_writer import RunWriter


def rows(path):
    chunks = list(Trace(path).chunks())
    return {s: np.concatenate([c.streams[s] for c in chunks]) for s in Trace(path).streams}, Trace(
        path
    ).records().to_pylist()


def loop(tracer, model, optimizer, losses):
    """Run one step per loss function; returns x_t, g_t and the loss as the loop saw them."""
    seen = []
    for loss_of in losses:
        optimizer.zero_grad()
        loss = tracer.loss(loss_of)
        loss.backward()
        seen.append((flat(model.parameters()), flat(p.grad for p in model.parameters()), loss.item()))
        optimizer.step()
    return seen


def flat(tensors):
    return torch.cat([t.detach().flatten() for t in tensors]).numpy().copy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_gradients_and_losses_are_those_of_the_loop_bit_for_bit(tmp_path, dtype):
    torch.manual_seed(1)
    model = plain_net().to(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    batches = [torch.rand(5, 64, dtype=dtype) for _ in range(7)]
    with Tracer(tmp_path / "run", model, optimizer) as tracer:
        seen = loop(tracer, model, optimizer, [lambda b=b: model(b).square().mean() for b in batches])
    vectors, records = rows(tmp_path / "run")
    assert vectors["x"].dtype == np.dtype(str(dtype).removeprefix("torch."))
    for t, (x, g, loss) in enumerate(seen):
        assert np.array_equal(vectors["x"][t], x)
        assert np.array_equal(vectors["g"][t], g)
        assert records[t]["loss"] == loss
    assert np.array_equal(vectors["x"][-1], flat(model.parameters())), "the closing row holds the final point"
    assert [r["has_g"] for r in records] == [True] * 7 + [False]


@pytest.mark.parametrize("when_full", ["block", "drop"])
@pytest.mark.parametrize("disk", ["fast", "slow"])
def test_the_look_back_probe_sees_the_same_function_at_the_previous_point(tmp_path, monkeypatch, disk, when_full):
    """Dropout and BatchNorm in train mode: evaluated by hand at x_{t-1} with the same random numbers.

    A slow disk keeps one of the two slots, so that each is filled again as soon as it may be.
    """
    if disk == "slow":
        monkeypatch.setattr(recorder, "slots_for", lambda step_bytes: 2)
        write = RunWriter.append_all
        monkeypatch.setattr(RunWriter, "append_all", lambda *given: (time.sleep(0.01), write(*given)))
    torch.manual_seed(1)
    model = noisy_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    expected, previous = [], None
    with Tracer(tmp_path / "run", model, optimizer, probes=["look_back"], when_full=when_full) as tracer:
        for _ in range(12):
            batch = torch.rand(8, 1, 8, 8)
            state = torch.get_rng_state()
            if previous is not None:
                twin = noisy_net()
                twin.load_state_dict(previous)
                torch.set_rng_state(state)
                loss = twin(batch).square().mean()
                loss.backward()
                expected.append((loss.item(), flat(p.grad for p in twin.parameters())))
                torch.set_rng_state(state)
            previous = {k: v.clone() for k, v in model.state_dict().items()}
            loop(tracer, model, optimizer, [lambda b=batch: model(b).square().mean()])
    vectors, records = rows(tmp_path / "run")
    steps = [r["step"] for r in records]
    adjacent = [t - 1 in steps and t < 12 for t in steps]
    assert [r["has_h"] for r in records] == adjacent
    assert len(steps) == 13 or (disk, when_full) == ("slow", "drop")
    for row in np.flatnonzero(adjacent):
        loss, h = expected[steps[row] - 1]
        assert records[row]["loss_previous"] == loss
        assert np.array_equal(vectors["h"][row], h)


def test_accumulated_micro_batches_are_recorded_as_one_loss_and_one_gradient(tmp_path):
    torch.manual_seed(1)
    model, batches = plain_net().double(), torch.rand(6, 4, 64, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Tracer(tmp_path / "run", model, optimizer, probes=["look_back"]) as tracer:
        for pair in batches.reshape(3, 2, 4, 64):
            optimizer.zero_grad()
            for micro in pair:
                (tracer.loss(lambda b=micro: model(b).square().mean()) / 2).backward()
            optimizer.step()
    vectors, records = rows(tmp_path / "run")
    twin = plain_net().double()
    for t in (1, 2):
        for stream, at, name in (("g", t, "loss"), ("h", t - 1, "loss_previous")):
            nn.utils.vector_to_parameters(torch.tensor(vectors["x"][at]), twin.parameters())
            twin.zero_grad()
            loss = twin(batches[2 * t : 2 * t + 2].reshape(8, 64)).square().mean()
            loss.backward()
            assert records[t][name] == pytest.approx(loss.item(), rel=1e-14)
            np.testing.assert_allclose(vectors[stream][t], flat(p.grad for p in twin.parameters()), rtol=1e-11)


def test_clipping_keeps_the_gradient_before_the_clip_and_the_factor(tmp_path):
    torch.manual_seed(1)
    model = plain_net().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    raw, clipped = [], []
    with Tracer(tmp_path / "run", model, optimizer) as tracer:
        for _ in range(3):
            optimizer.zero_grad()
            tracer.loss(lambda: model(torch.ones(2, 64, dtype=torch.float64)).square().sum()).backward()
            raw.append(flat(p.grad for p in model.parameters()))
            tracer.clip_grad_norm_(0.01)
            clipped.append(flat(p.grad for p in model.parameters()))
            optimizer.step()
    vectors, records = rows(tmp_path / "run")
    for t in range(3):
        assert np.array_equal(vectors["g"][t], raw[t])
        np.testing.assert_allclose(vectors["g"][t] * records[t]["clip_factor"], clipped[t], rtol=1e-14)
        assert records[t]["clip_factor"] < 1


def test_learning_rates_and_other_numbers_are_recorded_per_group_and_step(tmp_path):
    model = plain_net()
    groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters(), "lr": 0.2}]
    optimizer = torch.optim.SGD(groups, lr=0.5, momentum=0.9)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    with Tracer(tmp_path / "run", model, optimizer) as tracer:
        for _ in range(3):
            loop(tracer, model, optimizer, [lambda: model(torch.ones(1, 64)).square().mean()])
            schedule.step()
    _, records = rows(tmp_path / "run")
    assert [r["group0.lr"] for r in records] == [0.1, 0.05, 0.025, None]
    assert [r["group1.lr"] for r in records] == [0.2, 0.1, 0.05, None]
    assert [r["lr"] for r in records] == [None] * 4, "the groups differ"
    assert [r["momentum"] for r in records] == [0.9] * 3 + [None]


def test_a_grad_scaler_leaves_loss_and_gradients_unscaled_and_a_skipped_step_is_a_row_that_is_not_finite(tmp_path):
    torch.manual_seed(1)
    model = plain_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    values = [1.0, 1.0, float("inf"), 1.0, 1.0]
    with Tracer(tmp_path / "run", model, optimizer, probes=["look_back"], grad_scaler=scaler) as tracer:
        for value in values:
            optimizer.zero_grad()
            loss = tracer.loss(lambda v=value: (model(torch.ones(2, 64)) * v).square().mean())
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    vectors, records = rows(tmp_path / "run")
    assert [r["skipped"] for r in records] == [None, None, True, None, None, None]
    assert [r["finite"] for r in records] == [True, True, False, True, True, True]
    twin = plain_net()
    nn.utils.vector_to_parameters(torch.tensor(vectors["x"][1]), twin.parameters())
    twin(torch.ones(2, 64)).square().mean().backward()
    np.testing.assert_allclose(vectors["g"][1], flat(p.grad for p in twin.parameters()), rtol=1e-5, atol=1e-9)
    assert records[1]["loss"] == pytest.approx(twin(torch.ones(2, 64)).square().mean().item(), rel=1e-6)
    nn.utils.vector_to_parameters(torch.tensor(vectors["x"][0]), twin.parameters())
    twin.zero_grad()
    twin(torch.ones(2, 64)).square().mean().backward()
    np.testing.assert_allclose(vectors["h"][1], flat(p.grad for p in twin.parameters()), rtol=1e-5, atol=1e-9)
    assert np.array_equal(vectors["x"][2], vectors["x"][3]), "the skipped step did not move"


def test_a_diverged_step_is_recorded_and_marked(tmp_path):
    model = plain_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Tracer(tmp_path / "run", model, optimizer) as tracer:
        loop(tracer, model, optimizer, [lambda v=v: model(torch.ones(1, 64)).mean() * v for v in (1.0, float("nan"))])
    assert [r["finite"] for r in Trace(tmp_path / "run").records().to_pylist()] == [True, False, False]


def test_frozen_and_tied_parameters_are_left_out_and_counted_once(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head, self.extra = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False), nn.Linear(2, 2)
            self.head.weight = self.embed.weight
            self.extra.requires_grad_(False)

    model = Tied()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    with Tracer(tmp_path / "run", model, optimizer) as tracer:
        loop(tracer, model.embed, optimizer, [lambda: model.head(model.embed(torch.tensor([1]))).sum()])
    trace = Trace(tmp_path / "run")
    assert [b.name for b in trace.blocks] == ["embed.weight"]
    assert trace.manifest.frozen_parameters == 6


class TestWrongUse:
    """Each mistake is an error at once, and the message says what to do."""

    def setup_method(self):
        self.model = plain_net()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def tracer(self, tmp_path, **options):
        return Tracer(tmp_path / "run", self.model, self.optimizer, **options)

    def test_a_step_without_backward(self, tmp_path):
        with (
            self.tracer(tmp_path),
            pytest.raises(UsageError, match=r"4 of 4 parameters have no gradient.*backward\(\)"),
        ):
            self.optimizer.step()

    def test_a_step_without_loss_when_probes_are_on(self, tmp_path):
        self.model(torch.ones(1, 64)).sum().backward()
        with (
            self.tracer(tmp_path, probes=["look_back"]),
            pytest.raises(UsageError, match=r"loss\(\) was called 0 times"),
        ):
            self.optimizer.step()

    def test_a_loss_that_never_went_backward(self, tmp_path):
        tracer = self.tracer(tmp_path)
        self.model(torch.ones(1, 64)).sum().backward()
        tracer.loss(lambda: self.model(torch.ones(1, 64)).sum())
        with pytest.raises(UsageError, match=r"backward\(\) reached 0"):
            self.optimizer.step()
        tracer.close()

    def test_an_unused_parameter_is_an_error_unless_it_is_meant(self, tmp_path):
        with self.tracer(tmp_path) as tracer:
            tracer.loss(lambda: self.model[0](torch.ones(1, 64)).sum()).backward()
            with pytest.raises(UsageError, match=r"2 of 4 parameters.*'2\.weight'.*missing_gradient='zero'"):
                self.optimizer.step()
        with Tracer(tmp_path / "b", self.model, self.optimizer, missing_gradient="zero") as tracer:
            tracer.loss(lambda: self.model[0](torch.ones(1, 64)).sum()).backward()
            self.optimizer.step()
        vectors, _ = rows(tmp_path / "b")
        assert not vectors["g"][0, -170:].any()

    @pytest.mark.parametrize(
        "bad", [lambda m: 3.0, lambda m: m(torch.ones(2, 64)), lambda m: m(torch.ones(1, 64)).sum().detach()]
    )
    def test_a_loss_that_cannot_be_differentiated(self, tmp_path, bad):
        with self.tracer(tmp_path) as tracer, pytest.raises(UsageError, match="must return a scalar tensor"):
            tracer.loss(lambda: bad(self.model))

    def test_a_closure_optimizer(self, tmp_path):
        self.optimizer = torch.optim.LBFGS(self.model.parameters())
        with self.tracer(tmp_path), pytest.raises(UsageError, match="evaluates several points"):
            self.optimizer.step(lambda: 0.0)

    def test_a_run_that_exists(self, tmp_path):
        self.tracer(tmp_path).close()
        with pytest.raises(UsageError, match="never overwritten"):
            self.tracer(tmp_path)

    def test_a_second_writer(self, tmp_path):
        with self.tracer(tmp_path), pytest.raises(UsageError, match="another process is recording"):
            self.tracer(tmp_path)

    def test_unknown_probe_bad_run_id_foreign_directory_and_bad_config(self, tmp_path):
        with pytest.raises(UsageError, match=r"'look_front' is not known.*'look_back'"):
            self.tracer(tmp_path, probes=["look_front"])
        with pytest.raises(UsageError, match="run id 'a b'"):
            Tracer(tmp_path / "a b", self.model, self.optimizer)
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "letter.txt").write_text("dear")
        with pytest.raises(UsageError, match=r"letter\.txt"):
            Tracer(tmp_path / "mine", self.model, self.optimizer)
        with pytest.raises(UsageError, match="plain JSON"):
            Tracer(tmp_path / "nan", self.model, self.optimizer, config={"lr": float("nan")})

    def test_a_parameter_outside_the_model(self, tmp_path):
        self.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})
        with pytest.raises(UsageError, match="1 tensors that are not parameters of the model"):
            self.tracer(tmp_path)

    def test_use_after_close(self, tmp_path):
        tracer = self.tracer(tmp_path)
        tracer.close()
        with pytest.raises(UsageError, match="closed"):
            tracer.loss(lambda: self.model(torch.ones(1, 64)).sum())


def test_an_exception_in_training_closes_the_run_and_says_so(tmp_path):
    with pytest.raises(KeyError), Tracer(tmp_path / "run", model := plain_net(), torch.optim.SGD(model.parameters())):
        raise KeyError("data gone")
    ended = Trace(tmp_path / "run").manifest.ended
    assert (ended["reason"], ended["error"]) == ("exception", "KeyError: 'data gone'")


def test_a_bare_name_is_recorded_under_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("LEMMATA_HOME", str(tmp_path / "home"))
    train(run="my-run", steps=2)
    assert Trace(tmp_path / "home" / "runs" / "my-run").step_count == 3
