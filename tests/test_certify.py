"""``lemmata certify`` says identical, or where training first differs, or that the script does not repeat itself."""

import json
from dataclasses import replace

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from pipeline.terminal.certify_command import register
from tracer import UsageError
from tracer.certificate import Certificate, Difference
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


def command():
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app, Console(stderr=True))
    return app


def test_a_training_that_the_tracer_leaves_alone_is_identical_and_its_run_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("LEMMATA_HOME", str(tmp_path / "home"))
    done = CliRunner().invoke(command(), ["certify", str(script(tmp_path)), "--json"])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert (found["verdict"], found["steps"], found["difference"]) == ("identical", 5, None)
    run = tmp_path / "home" / "runs" / "certified-mine"
    trace = Trace(run)
    assert trace.manifest.certificate == found
    assert found["probes"] == ["look_back", "look_ahead"]
    assert trace.manifest.config == {"mine": 1}
    assert trace.streams == ("x", "g", "h", "a")
    assert not verify(run)


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


def test_the_command_prints_what_was_found_and_its_exit_code_says_it_too(monkeypatch):
    found = Certificate(
        "differs", "mine.py", 0, 5, 9, 99, (1.0, 2.0), Difference(3, "parameter w", (0, 2), 1.0, 2.0, 4)
    )
    monkeypatch.setattr("tracer.certify.certify", lambda *given, **options: found)
    done = CliRunner().invoke(command(), ["certify", "mine.py"])
    assert done.exit_code == 1
    assert "mine.py: differs" in done.stdout
    assert "after step 3, parameter w[0, 2]: 1.0 against 2.0 (and 3 other tensors)" in done.stdout
    same = CliRunner()
    found = replace(found, verdict="identical", difference=None)
    assert "identical: 5 steps" in same.invoke(command(), ["certify", "mine.py"]).stdout
