"""A wrong argument is one clear error before anything is made, from Python and on the command line."""

import json
import re
from collections import namedtuple

import pytest
import torch
from torch import nn

from pipeline import commands
from tracer import Tracer, Untraced, UsageError, forecast
from tracer.certify import certify
from tracer.replay.replay import Asked, replay
from tracer.schedule import Budget
from tracer.store import Trace
from tracer.workloads import train

NAN, INFINITY = float("nan"), float("inf")


def tracer(path, **options):
    model = nn.Linear(3, 1)
    return Tracer(path, model, torch.optim.SGD(model.parameters(), lr=0.1), **options)


def refused(found):
    """A usage error: exit code 2 and its text in one line, whatever typer draws around it."""
    code, out, err = found
    assert code == 2
    assert "Traceback" not in out + err
    return re.sub(r"[\s│]+", " ", err)


@pytest.fixture
def recorded(lemmata, empty_home):
    assert lemmata("record", "logistic", "--batches", "--steps", "3", "--run", "run")[0] == 0
    return empty_home


@pytest.mark.parametrize(
    "given",
    ["live", "ab", ("live",), ("live", 1, 2), 5, ("live", -3), ("live", True), ("live", 1.0), ("../x", 1), (7, 1)],
    ids=str,
)
def test_a_branch_names_a_run_and_a_step(tmp_path, given):
    with pytest.raises(UsageError, match=r"^branch_of=.*expected \(run id, step\)"):
        tracer(tmp_path / "run", branch_of=given)
    assert not (tmp_path / "run").exists()


def test_show_says_what_a_run_is_a_branch_of(lemmata, empty_home):
    tracer("twig", branch_of=["live", 5]).close()
    assert Trace(empty_home / "runs" / "twig").manifest.branch_of == {"run_id": "live", "step": 5}
    assert re.search(r"branch of +live, step 5\s", lemmata("show", "twig")[1])
    assert json.loads(lemmata("show", "twig", "--json")[1])["branch_of"] == {"run_id": "live", "step": 5}
    tracer("trunk").close()
    assert "branch of" not in lemmata("show", "trunk")[1]


@pytest.mark.parametrize("share", [NAN, INFINITY, 0, -0.1, True, "0.03"], ids=str)
def test_a_budget_is_a_finite_share_above_zero(share):
    with pytest.raises(UsageError, match=r"^budget=.*expected a share of training time"):
        Budget(share)


@pytest.mark.parametrize(
    "options",
    [
        *({"budget": each} for each in (NAN, INFINITY)),
        *({"chunk_bytes": each} for each in (0, -1, 1e6, True)),
        *({"chunk_seconds": each} for each in (-1, NAN, "600", True)),
        *({"steps": each} for each in (0, -1, NAN, 2.5, True)),
        *({"resume_at": each} for each in ("5", -1, 5.0, True, 1 << 63)),
    ],
    ids=str,
)
def test_a_wrong_number_is_named_and_no_run_is_made(tmp_path, options):
    (name,) = options
    with pytest.raises(UsageError, match=rf"^{name}=.*: expected"):
        tracer(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_steps_are_checked_where_space_is_not(tmp_path):
    with pytest.raises(UsageError, match=r"^steps=0: expected"):
        tracer(tmp_path / "run", steps=0, check_space=False)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("clip_grad_norm_", lambda tracer, parameters: tracer.clip_grad_norm_(parameters, 0.5)),
        ("clip_grad_norm_", lambda tracer, parameters: tracer.clip_grad_norm_(parameters, max_norm=0.5)),
        ("clip_grad_norm_", lambda tracer, parameters: tracer.clip_grad_norm_(list(parameters), 0.5)),
        ("clip_grad_norm_", lambda tracer, parameters: tracer.clip_grad_norm_(next(parameters), 0.5)),
        ("clip_grad_norm_", lambda tracer, parameters: tracer.clip_grad_norm_(parameters=parameters, max_norm=0.5)),
        ("clip_grad_value_", lambda tracer, parameters: tracer.clip_grad_value_(parameters, 0.5)),
        ("clip_grad_value_", lambda tracer, parameters: tracer.clip_grad_value_(parameters, clip_value=0.5)),
    ],
)
@pytest.mark.parametrize("kind", [Tracer, Untraced])
def test_the_clip_of_torch_is_answered_with_that_of_the_tracer(tmp_path, kind, name, call):
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with kind(tmp_path / "run", model, optimizer) as tracer:
        tracer.loss(lambda: model(torch.ones(4, 3)).square().mean()).backward()
        with pytest.raises(UsageError, match=rf"^tracer\.{name}: expected the limit alone.*clips what it records"):
            call(tracer, model.parameters())
        getattr(tracer, name)(torch.tensor(0.5))  # a number is a number
        optimizer.step()
    assert kind is Untraced or Trace(tmp_path / "run").step_count == 2


def test_certify_takes_seeds_that_every_generator_takes(tmp_path):
    for seed in (-1, 2**32):
        with pytest.raises(UsageError, match=f"seed={seed}: expected a whole number from 0"):
            certify(tmp_path / "script.py", tmp_path / "run", seed=seed)


@pytest.mark.parametrize("option", ["--parameters", "--batch-bytes", "--steps"])
@pytest.mark.parametrize("number", ["inf", "nan", "1e300", "9" * 400])
def test_plan_refuses_a_number_that_is_none(lemmata, empty_home, option, number):
    options = {"--parameters": "10", "--steps": "10", option: number}
    assert option in refused(lemmata("plan", *(word for pair in options.items() for word in pair)))


@pytest.mark.parametrize("inside", ["", "/runs"])
def test_plan_refuses_a_file_as_the_place_of_a_run(lemmata, tmp_path, inside):
    (tmp_path / "file").write_text("in the way")
    found = refused(lemmata("plan", "--parameters", "10", "--steps", "10", "--where", f"{tmp_path}/file{inside}"))
    assert f"--where {tmp_path}/file{inside}: expected a directory" in found
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_plan_ends_with_1_where_the_disk_is_too_small_and_advises_its_own_options(
    lemmata, empty_home, monkeypatch, as_json
):
    disk = namedtuple("disk", "free")(10**9)
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda place: disk)
    monkeypatch.setattr(forecast, "disk_speed", lambda place: 1e9)
    code, out, err = lemmata("plan", "--parameters", "124e6", "--steps", "1000", *as_json)
    assert code == 1
    assert "0.99 TB" in out or "992" in out
    assert "--every" in err
    assert "--where" in err
    assert not re.search(r"plan=|blocks=|tensors=|check_space", err)
    assert lemmata("plan", "--parameters", "1000", "--steps", "1000", *as_json)[::2] == (0, "")


@pytest.mark.parametrize(
    ("option", "number"),
    [
        *(("--lr", each) for each in ("-1", "nan", "inf")),
        *(("--seed", each) for each in ("-1", str(2**32), "9" * 23)),
        *(("--steps", each) for each in ("0", "-1")),
    ],
)
def test_record_refuses_a_wrong_number_before_anything_is_made(lemmata, empty_home, option, number):
    assert option in refused(lemmata("record", "logistic", option, number))
    assert not empty_home.exists()


@pytest.mark.parametrize(
    "options",
    [
        *({"lr": each} for each in (-1, NAN, INFINITY, "0.1")),
        *({"seed": each} for each in (-1, 2**32, 0.5, True)),
        *({"steps": each} for each in (0, 2.5, 10**30)),
    ],
    ids=str,
)
def test_a_built_in_training_refuses_a_wrong_number_before_anything_is_made(tmp_path, options):
    (name,) = options
    with pytest.raises(UsageError, match=rf"^{name}=.*: expected"):
        train("logistic", tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_the_largest_seed_and_a_rate_of_zero_are_fine(tmp_path):
    path = train("logistic", tmp_path / "run", seed=2**32 - 1, lr=0, steps=1)
    assert Trace(path).manifest.config["seed"] == 2**32 - 1


@pytest.mark.parametrize("device", ["foo", "", "meta", "cuda", "cuda:99"])
def test_replay_refuses_a_device_that_is_not_here(lemmata, recorded, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: device == "cuda:99")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(device == "cuda:99"))
    assert f"--device {device}: expected" in refused(lemmata("replay", "run", "--device", device))
    assert not (recorded / "tables").exists()


def test_replay_refuses_more_nodes_than_anybody_needs(lemmata, recorded):
    assert "profile=100000" in refused(lemmata("replay", "run", "--profile", "100000"))
    assert not (recorded / "tables").exists()
    assert "profile" not in lemmata("replay", "run")[1]
    Asked(profile=1000).check()


@pytest.mark.parametrize(
    "options", [{"profile": 1001}, {"profile": 2.5}, {"profile": "5"}, {"sharpness": True}, {"every": 0}], ids=str
)
def test_what_is_asked_of_a_replay_is_a_whole_number(options):
    (name,) = options
    with pytest.raises(UsageError, match=rf"^replay: {name}=.*; expected a whole number"):
        replay("run", Asked(**options))


@pytest.mark.parametrize("seed", ["-1", str(2**32)])
def test_certify_refuses_a_seed_that_python_does_not_take(lemmata, empty_home, seed):
    assert "--seed" in refused(lemmata("certify", "training.py", "--seed", seed))


def test_help_shows_the_extra_in_its_brackets(lemmata):
    assert "lemmata[replay]" in lemmata("replay", "--help")[1]


def test_no_help_text_has_brackets_that_rich_takes_for_a_style():
    for command in commands.app.registered_commands:
        texts = [command.callback.__doc__ or "", command.epilog or ""]
        for kind in command.callback.__annotations__.values():
            texts += [each.help or "" for each in getattr(kind, "__metadata__", ())]
        for text in texts:
            assert not re.search(r"(?<!\\)\[[a-zA-Z/#@]", text), text


def test_a_run_outside_the_home_is_not_said_to_be_in_it(lemmata, empty_home, tmp_path, monkeypatch):
    (tmp_path / "a place" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a place" / "here")
    code, _, err = lemmata("record", "logistic", "--steps", "2", "--run", "../x")
    assert code == 0
    assert "lies outside this home" in err
    assert f"ln -s '{tmp_path}/a place/x' {empty_home}/runs/" in err
    assert "Next:" not in err
    (empty_home / "runs" / "x").symlink_to(tmp_path / "a place" / "x")
    assert lemmata("show", "x")[0] == 0
    assert "Next: lemmata materialize y" in lemmata("record", "logistic", "--steps", "2", "--run", "y")[2].replace(
        commands.program(), "lemmata"
    )
