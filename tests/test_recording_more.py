"""Probes, plans, blocks, clipping and optimizer buffers, against what a training loop knows of itself."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.test_recording import flat, loop, rows
from tests.training import noisy_net, plain_net
from tracer import Bursts, EveryNth, RecordingError, Tracer, UsageError
from tracer.store import Trace


def sgd(model, **options):
    return torch.optim.SGD(model.parameters(), **{"lr": 0.1, **options})


def sparse_rows(path):
    """Steps that were recorded, and per stream the rows of those that have it."""
    chunks = list(Trace(path).chunks())
    return np.concatenate([c.steps for c in chunks]), {
        s: {int(t): c.streams[s][i] for c in chunks for i, t in enumerate(c.steps) if c.has[s][i]}
        for s in Trace(path).streams
    }


def evaluate(build, point, closure_of, state=None, buffers=None):
    """Loss and gradient by hand, on a copy of the model at ``point``."""
    twin = build()
    if buffers is not None:
        twin.load_state_dict(buffers)
    nn.utils.vector_to_parameters(torch.tensor(np.array(point)), twin.parameters())
    if state is not None:
        torch.set_rng_state(state)
    loss = closure_of(twin)
    loss.backward()
    return loss.item(), flat(p.grad for p in twin.parameters())


def test_the_look_ahead_probe_sees_the_same_function_at_the_next_point(tmp_path):
    """Dropout and BatchNorm in train mode: evaluated by hand at x_{t+1} with the random numbers of step t."""
    torch.manual_seed(1)
    model = noisy_net()
    optimizer = sgd(model)
    seen = []
    with Tracer(tmp_path / "run", model, optimizer, probes=["look_back", "look_ahead"]) as tracer:
        for _ in range(5):
            batch = torch.rand(8, 1, 8, 8)
            seen.append((batch, torch.get_rng_state(), {k: v.clone() for k, v in model.state_dict().items()}))
            optimizer.zero_grad()
            tracer.loss(lambda: model(batch).square().mean()).backward()  # noqa: B023
            torch.rand(3)  # between backward() and step() the random stream moves on
            optimizer.step()
    vectors, records = rows(tmp_path / "run")
    assert [r["has_a"] for r in records] == [True] * 5 + [False]
    for t, (batch, state, buffers) in enumerate(seen):
        loss, a = evaluate(noisy_net, vectors["x"][t + 1], lambda m, b=batch: m(b).square().mean(), state, buffers)
        assert records[t]["loss_next"] == loss
        assert np.array_equal(vectors["a"][t], a)


def test_accumulated_micro_batches_are_each_asked_again_at_the_next_point(tmp_path):
    """The loop's variable is bound to the last micro-batch when the update comes; the probe still has each of them."""
    torch.manual_seed(1)
    build = lambda: plain_net().double()  # noqa: E731
    model, batches = build(), torch.rand(6, 4, 64, dtype=torch.float64)
    optimizer = sgd(model)
    with Tracer(tmp_path / "run", model, optimizer, probes=["look_ahead"]) as tracer:
        for pair in batches.reshape(3, 2, 4, 64):
            optimizer.zero_grad()
            for micro in pair:
                (tracer.loss(lambda: model(micro).square().mean()) / 2).backward()  # noqa: B023
            optimizer.step()
    vectors, records = rows(tmp_path / "run")
    for t in range(3):
        whole = batches[2 * t : 2 * t + 2].reshape(8, 64)
        loss, a = evaluate(build, vectors["x"][t + 1], lambda m, b=whole: m(b).square().mean())
        assert records[t]["loss_next"] == pytest.approx(loss, rel=1e-14)
        np.testing.assert_allclose(vectors["a"][t], a, rtol=1e-11)


def test_half_batch_gradients_are_those_of_the_halves_and_their_mean_is_the_gradient(tmp_path):
    torch.manual_seed(1)
    build = lambda: plain_net().double()  # noqa: E731
    model = build()
    optimizer = sgd(model)
    batches = torch.rand(3, 8, 64, dtype=torch.float64)

    def loss_of(m, part):
        return m(part).square().mean()

    with Tracer(tmp_path / "run", model, optimizer, probes=["half_batches"]) as tracer:
        for batch in batches:
            optimizer.zero_grad()
            halves = (lambda b=batch: loss_of(model, b[:4])), (lambda b=batch: loss_of(model, b[4:]))
            tracer.loss(lambda b=batch: loss_of(model, b), halves=halves).backward()
            optimizer.step()
    vectors, _ = rows(tmp_path / "run")
    for t, batch in enumerate(batches):
        for stream, half in (("ga", batch[:4]), ("gb", batch[4:])):
            _, expected = evaluate(build, vectors["x"][t], lambda m, b=half: loss_of(m, b))
            np.testing.assert_allclose(vectors[stream][t], expected, rtol=1e-12)
        np.testing.assert_allclose((vectors["ga"][t] + vectors["gb"][t]) / 2, vectors["g"][t], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("how", ["norm", "value"])
def test_both_gradients_are_recoverable_bit_for_bit_after_a_clip(tmp_path, dtype, how):
    torch.manual_seed(1)
    model = plain_net().to(dtype)
    optimizer = sgd(model)
    raw, clipped = [], []
    with Tracer(tmp_path / "run", model, optimizer) as tracer:
        for _ in range(4):
            optimizer.zero_grad()
            tracer.loss(lambda: model(torch.rand(2, 64, dtype=dtype)).square().sum()).backward()
            raw.append(flat(p.grad for p in model.parameters()))
            tracer.clip_grad_norm_(0.01) if how == "norm" else tracer.clip_grad_value_(0.01)
            clipped.append(flat(p.grad for p in model.parameters()))
            optimizer.step()
    vectors, records = rows(tmp_path / "run")
    for t, record in enumerate(records[:-1]):
        g = vectors["g"][t]
        again = g * g.dtype.type(record["clip_factor"]) if how == "norm" else g.clip(-0.01, 0.01)
        assert np.array_equal(g, raw[t])
        assert np.array_equal(again, clipped[t])
        assert not np.array_equal(g, again)
        assert (record["clip_value"] is None) == (how == "norm")


class TestChangedGradients:
    """What happens to a gradient between backward() and step() without the tracer knowing is an error at once."""

    def setup_method(self):
        torch.manual_seed(1)
        self.model = plain_net()
        self.optimizer = sgd(self.model)

    def step(self, tmp_path, change, **options):
        with Tracer(tmp_path / "run", self.model, self.optimizer, **options) as tracer:
            tracer.loss(lambda: self.model(torch.ones(2, 64)).square().sum()).backward()
            change(list(self.model.parameters()), tracer)
            self.optimizer.step()
        return Trace(tmp_path / "run")

    @staticmethod
    def noise(parameters, tracer):
        for p in parameters:
            p.grad += torch.randn_like(p)

    @staticmethod
    def replace(parameters, tracer):
        parameters[1].grad = parameters[1].grad * 2

    @staticmethod
    def second_loss(parameters, tracer):
        (parameters[3] ** 2).sum().backward()

    @staticmethod
    def after_the_clip(parameters, tracer):
        tracer.clip_grad_norm_(0.1)
        parameters[0].grad.zero_()

    @staticmethod
    def before_the_clip(parameters, tracer):
        parameters[0].grad.zero_()
        tracer.clip_grad_norm_(0.1)

    @staticmethod
    def clip_norm(parameters, tracer):
        nn.utils.clip_grad_norm_(parameters, 0.1)

    @staticmethod
    def clip_value(parameters, tracer):
        nn.utils.clip_grad_value_(parameters, 0.1)

    @pytest.mark.parametrize(
        "how",
        ["noise", "replace", "second_loss", "after_the_clip", "before_the_clip", "clip_norm", "clip_value"],
    )
    def test_it_is_refused_with_the_parameter_and_what_to_do(self, tmp_path, how):
        with pytest.raises(UsageError, match=r"gradient of '.*' was changed between.*tracer\.clip_grad_norm_"):
            self.step(tmp_path, getattr(self, how))

    @pytest.mark.parametrize("how", ["noise", "replace", "second_loss"])
    def test_it_is_recorded_as_it_is_where_it_is_meant(self, tmp_path, how):
        assert self.step(tmp_path, getattr(self, how), changed_gradients="record").step_count == 2

    def test_unscaling_is_no_such_change(self, tmp_path):
        scaler = torch.amp.GradScaler("cpu")
        with Tracer(tmp_path / "run", self.model, self.optimizer, grad_scaler=scaler) as tracer:
            loss = tracer.loss(lambda: self.model(torch.ones(2, 64)).square().sum())
            scaler.scale(loss).backward()
            with pytest.raises(UsageError, match=r"Call scaler\.unscale_"):
                tracer.clip_grad_norm_(1.0)
            scaler.unscale_(self.optimizer)
            tracer.clip_grad_norm_(1.0)
            with pytest.raises(UsageError, match="clipped twice"):
                tracer.clip_grad_value_(1.0)
            scaler.step(self.optimizer)
        assert Trace(tmp_path / "run").step_count == 2

    def test_a_scaler_that_the_tracer_does_not_know_is_noticed(self, tmp_path):
        scaler = torch.amp.GradScaler("cpu")
        with Tracer(tmp_path / "run", self.model, self.optimizer) as tracer:
            scaler.scale(tracer.loss(lambda: self.model(torch.ones(2, 64)).square().sum())).backward()
            with pytest.raises(UsageError, match="grad_scaler=scaler"):
                scaler.step(self.optimizer)


def test_a_fused_optimizer_that_unscales_for_itself_is_recorded_unscaled_and_its_skipped_step_as_skipped(tmp_path):
    torch.manual_seed(1)
    model = plain_net()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    batch = torch.rand(4, 64)
    with Tracer(tmp_path / "run", model, optimizer, probes=["look_ahead"], grad_scaler=scaler) as tracer:
        for factor in (1.0, float("inf"), 1.0):
            optimizer.zero_grad()
            scaler.scale(tracer.loss(lambda f=factor: model(batch).square().mean() * f)).backward()
            scaler.step(optimizer)
            scaler.update()
    vectors, records = rows(tmp_path / "run")
    _, expected = evaluate(plain_net, vectors["x"][0], lambda m: m(batch).square().mean())
    np.testing.assert_allclose(vectors["g"][0], expected, rtol=1e-5, atol=1e-9)
    assert [r["skipped"] for r in records] == [None, True, None, None]
    assert [r["has_g"] for r in records] == [True, False, True, False]
    assert [r["finite"] for r in records] == [True, False, True, True]
    assert np.array_equal(vectors["x"][1], vectors["x"][2])


@pytest.mark.parametrize(
    ("plan", "expected", "with_h", "with_a"),
    [
        (EveryNth(4), [0, 1, 4, 5, 8, 9, 11], [1, 5, 9], [0, 4, 8]),
        (EveryNth(4, neighbour=False), [0, 4, 8, 11], [], []),
        (Bursts(3, 5), [0, 1, 2, 5, 6, 7, 10, 11], [1, 2, 6, 7], [0, 1, 5, 6, 10]),
    ],
)
def test_a_plan_says_which_steps_are_recorded_and_a_probe_runs_only_between_two_of_them(
    tmp_path, plan, expected, with_h, with_a
):
    model = plain_net()
    optimizer = sgd(model)

    def loss_of():
        CALLS.append(0)
        return model(torch.ones(2, 64)).square().mean()

    CALLS.clear()
    with Tracer(tmp_path / "run", model, optimizer, plan=plan, probes=["look_back", "look_ahead"]) as tracer:
        loop(tracer, model, optimizer, [loss_of] * 11)
    steps, vectors = sparse_rows(tmp_path / "run")
    assert steps.tolist() == expected
    assert list(vectors["h"]) == with_h
    assert list(vectors["a"]) == with_a
    assert len(CALLS) == 11 + len(with_h) + len(with_a)
    assert Trace(tmp_path / "run").manifest.plan["steps"] == plan.description()["steps"]


CALLS: list[int] = []


def test_some_blocks_are_recorded_and_the_rest_counted_while_the_probe_moves_all_of_them(tmp_path):
    torch.manual_seed(1)
    build = lambda: plain_net().double()  # noqa: E731
    model = build()
    optimizer = sgd(model)
    batches = torch.rand(4, 5, 64, dtype=torch.float64)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    for name, blocks in (("some", ["2.*"]), ("all", None)):
        model.load_state_dict(start)
        with Tracer(tmp_path / name, model, optimizer, blocks=blocks, probes=["look_back", "look_ahead"]) as tracer:
            loop(tracer, model, optimizer, [lambda b=b: model(b).square().mean() for b in batches])
    some, whole = Trace(tmp_path / "some"), Trace(tmp_path / "all")
    assert [b.name for b in some.blocks] == ["2.weight", "2.bias"]
    assert some.manifest.unrecorded_parameters == 64 * 16 + 16
    assert whole.manifest.unrecorded_parameters == 0
    parts, everything = sparse_rows(tmp_path / "some")[1], sparse_rows(tmp_path / "all")[1]
    for stream in "xgha":
        for t, row in parts[stream].items():
            assert np.array_equal(row, everything[stream][t][-170:])
    with pytest.raises(UsageError, match=r"matches none of the 4 trained parameters \(0\.weight"):
        Tracer(tmp_path / "none", model, optimizer, blocks=["layer*"])


def test_vectors_are_stored_in_the_dtype_that_was_asked_for(tmp_path):
    model = plain_net()
    with Tracer(tmp_path / "run", model, sgd(model), store="float64") as tracer:
        loop(tracer, model, tracer._subject.optimizer, [lambda: model(torch.ones(1, 64)).sum()])
    trace = Trace(tmp_path / "run")
    assert (trace.manifest.dtype, trace.blocks[0].dtype) == ("float64", "float32")
    assert np.array_equal(rows(tmp_path / "run")[0]["x"][-1], flat(model.parameters()))
    for short in ("bfloat16", "float16", {"g": "bfloat16", "h": "bfloat16"}):
        with pytest.raises(UsageError, match=r"factor of up to 670; of gradients, .*plan=, blocks="):
            Tracer(tmp_path / "b", model, sgd(model), store=short)
    with pytest.raises(UsageError, match="'int8' is not known"):
        Tracer(tmp_path / "b", model, sgd(model), store="int8")


def test_optimizer_buffers_are_recorded_as_they_are_after_the_update(tmp_path):
    torch.manual_seed(1)
    model = plain_net()
    optimizer = torch.optim.AdamW(model.parameters())
    seen = []
    with Tracer(tmp_path / "run", model, optimizer, optimizer_buffers=["exp_avg", "exp_avg_sq"]) as tracer:
        for _ in range(3):
            loop(tracer, model, optimizer, [lambda: model(torch.rand(2, 64)).square().mean()])
            seen.append([flat(optimizer.state[p][n] for p in model.parameters()) for n in ("exp_avg", "exp_avg_sq")])
    vectors, records = rows(tmp_path / "run")
    assert Trace(tmp_path / "run").streams == ("x", "g", "buffer:exp_avg", "buffer:exp_avg_sq")
    for t, (first, second) in enumerate(seen):
        assert np.array_equal(vectors["buffer:exp_avg"][t], first)
        assert np.array_equal(vectors["buffer:exp_avg_sq"][t], second)
    assert [r["has_buffer:exp_avg"] for r in records] == [True] * 3 + [False]
    optimizer = sgd(model, momentum=0.9)
    with (
        Tracer(tmp_path / "b", model, optimizer, optimizer_buffers=["exp_avg"]) as tracer,
        pytest.raises(UsageError, match=r"keeps no 'exp_avg'.*it keeps 'momentum_buffer'"),
    ):
        loop(tracer, model, optimizer, [lambda: model(torch.rand(2, 64)).square().mean()])


def test_a_parameter_that_begins_to_be_trained_later_is_an_error_unless_it_is_recorded_from_the_start(tmp_path):
    model = plain_net()
    model[0].requires_grad_(False)
    optimizer = sgd(model)

    def loss_of():
        return model(torch.ones(1, 64)).sum()

    with Tracer(tmp_path / "run", model, optimizer) as tracer:
        tracer.loss(loss_of).backward()
        optimizer.step()
        model[0].requires_grad_(True)
        tracer.loss(loss_of).backward()
        with pytest.raises(UsageError, match=r"now trains '0\.weight', which was frozen.*frozen='record'"):
            optimizer.step()
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
    with Tracer(tmp_path / "b", model, optimizer) as tracer:
        optimizer.add_param_group({"params": model[0].parameters()})
        with pytest.raises(UsageError, match="has 2 parameter groups; it had 1"):
            loop(tracer, model, optimizer, [loss_of])


def test_halves_and_their_probe_go_together(tmp_path):
    model = plain_net()
    closure = lambda: model(torch.ones(1, 64)).sum()  # noqa: E731
    with Tracer(tmp_path / "a", model, sgd(model)) as tracer, pytest.raises(UsageError, match="go together"):
        tracer.loss(closure, halves=(closure, closure))
    with (
        Tracer(tmp_path / "b", model, sgd(model), probes=["half_batches"]) as tracer,
        pytest.raises(UsageError, match="go together"),
    ):
        tracer.loss(closure)


@pytest.mark.parametrize(
    "bad", [lambda: EveryNth(0), lambda: Bursts(3, 2), lambda: Bursts(0, 2), lambda: EveryNth(1.5)]
)
def test_a_plan_that_means_nothing_is_refused(bad):
    with pytest.raises(UsageError, match="expected a"):
        bad()


def test_a_skipped_last_step_is_recorded_too(tmp_path):
    model = plain_net()
    optimizer = sgd(model)
    scaler = torch.amp.GradScaler("cpu")
    with Tracer(tmp_path / "run", model, optimizer, grad_scaler=scaler) as tracer:
        for factor in (1.0, float("inf")):
            optimizer.zero_grad()
            scaler.scale(tracer.loss(lambda f=factor: model(torch.ones(1, 64)).mean() * f)).backward()
            scaler.step(optimizer)
            scaler.update()
    assert [r["skipped"] for r in rows(tmp_path / "run")[1]] == [None, True, None]


def test_hyperparameters_are_those_of_each_step_however_they_change(tmp_path):
    """A schedule moves the momentum inside a tuple, the rate becomes a tensor, and a number may go away."""
    model = plain_net()
    optimizer = torch.optim.AdamW(
        [{"params": model[0].parameters(), "lr": 0.5}, {"params": model[2].parameters()}], lr=0.25, betas=(0.5, 0.75)
    )
    second = optimizer.param_groups[1]
    with Tracer(tmp_path / "run", model, optimizer) as tracer:
        for change in ({}, {"betas": (0.125, 0.75)}, {"lr": torch.tensor(0.0625), "betas": (0.5,)}, {"eps": None}):
            second.update(change)
            optimizer.zero_grad()
            tracer.loss(lambda: model(torch.ones(1, 64)).square().mean()).backward()
            tracer._before_step(optimizer, (), {})  # as step() would; AdamW cannot do with these
            tracer._after_step(optimizer, (), {})
    records = rows(tmp_path / "run")[1][:-1]
    names = [name for name in Trace(tmp_path / "run").manifest.hyperparameters if name.startswith("group1.")]
    assert names == [f"group1.{n}" for n in ("lr", "betas.0", "betas.1", "eps", "weight_decay")]
    found = [[r[name] for name in names] for r in records]
    assert found == [
        [0.25, 0.5, 0.75, 1e-8, 0.01],
        [0.25, 0.125, 0.75, 1e-8, 0.01],
        [0.0625, 0.5, None, 1e-8, 0.01],
        [0.0625, 0.5, None, None, 0.01],
    ]
    assert [r["group0.lr"] for r in records] == [0.5] * 4


def test_a_forked_process_does_not_record(tmp_path, monkeypatch):
    model = plain_net()
    with Tracer(tmp_path / "run", model, sgd(model)) as tracer:
        with monkeypatch.context() as patch:
            patch.setattr("os.getpid", lambda: -1)
            with pytest.raises(RecordingError, match="forked"):
                tracer.loss(lambda: model(torch.ones(1, 64)).sum())
        assert tracer.step == 0


def test_a_point_changed_after_the_update_is_not_the_one_the_look_ahead_probe_asked_at(tmp_path):
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train():
        with Tracer(tmp_path / "run", model, optimizer, probes=["look_ahead"], changed_updates="record") as tracer:
            for _ in range(2):
                optimizer.zero_grad()
                tracer.loss(lambda: model(torch.ones(4, 2)).square().mean()).backward()
                optimizer.step()
                with torch.no_grad():
                    model.weight.mul_(0.5)

    with pytest.raises(UsageError, match="changed after optimizer"):
        train()
