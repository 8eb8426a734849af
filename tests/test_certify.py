"""``lemmata certify`` says identical, or where training first differs, or that the script does not repeat itself."""

import json

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from pipeline.certify_command import register
from tracer import UsageError
from tracer.certify import certify
from tracer.store import Trace, verify

SCRIPT = """
import torch
from torch import nn

calls = 0

def train(tracer_for):
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.2), nn.Linear(3, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    with tracer_for(model, optimizer, config={"mine": 1}) as tracer:
        for step in range(5):
            inputs = torch.rand(8, 4)

            def loss_of():
                global calls
                LINE
                return model(inputs).square().mean()

            optimizer.zero_grad()
            tracer.loss(loss_of, batch=step).backward()
            optimizer.step()
"""
DISTURBED = "memory.append(0); inputs.mul_(1.0 + 0.25 * (len(memory) == 4))"  # the look-ahead at step 1 is the 4th call


def script(folder, line="pass"):
    path = folder / "mine.py"
    path.write_text(SCRIPT.replace("LINE", line).replace("calls = 0", "calls = 0\nmemory = []"))
    return path


def test_a_training_that_the_tracer_leaves_alone_is_identical_and_its_run_says_so(tmp_path):
    said = []
    found = certify(script(tmp_path), tmp_path / "run", say=said.append)
    assert (found.verdict, found.steps, found.difference) == ("identical", 5, None)
    assert "identical: 5 steps" in str(found)
    assert len(said) == 3
    trace = Trace(tmp_path / "run")
    assert trace.manifest.certificate["verdict"] == "identical"
    assert trace.manifest.certificate["probes"] == ["look_back", "look_ahead"]
    assert trace.manifest.config == {"mine": 1}
    assert trace.streams == ("x", "g", "h", "a")
    assert not verify(tmp_path / "run")


def test_a_training_whose_loss_counts_its_calls_differs_and_the_step_and_the_element_are_named(tmp_path):
    found = certify(script(tmp_path, DISTURBED), tmp_path / "run")
    assert found.verdict == "differs"
    assert found.difference.step == 1
    assert found.difference.tensor.startswith("parameter 0.weight")
    assert found.difference.first != found.difference.second
    assert "after step 1, parameter 0.weight[" in str(found)
    assert Trace(tmp_path / "run").manifest.certificate["difference"]["step"] == 1


def test_a_script_that_does_not_repeat_itself_is_told_so_and_the_tracer_is_not_blamed(tmp_path):
    found = certify(script(tmp_path, "import os; inputs.mul_(os.urandom(1)[0])"), tmp_path / "run")
    assert found.verdict == "not repeatable"
    assert "two trainings without the tracer differ, first after step 0" in str(found)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", r"defines no function train"),
        ("def train(tracer_for): pass", "never called tracer_for"),
        ("def train(tracer_for): 1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_script_that_cannot_be_certified_says_why(tmp_path, text, message):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(Exception, match=message):
        certify(tmp_path / "mine.py", tmp_path / "run")
    with pytest.raises(UsageError, match="no such script"):
        certify(tmp_path / "yours.py", tmp_path / "run")


def test_the_command_prints_the_verdict_and_exits_with_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LEMMATA_HOME", str(tmp_path / "home"))
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app, Console(stderr=True))
    done = CliRunner().invoke(app, ["certify", str(script(tmp_path)), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["verdict"] == "identical"
    assert Trace(tmp_path / "home" / "runs" / "certified-mine").manifest.certificate["verdict"] == "identical"
    done = CliRunner().invoke(app, ["certify", str(script(tmp_path, DISTURBED)), "--run", "other"])
    assert done.exit_code == 1
    assert "differs" in done.stdout
