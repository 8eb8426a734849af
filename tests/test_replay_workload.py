"""A workload is found by its name, hashed and compared before it is imported; nothing is imported without leave."""

import sys

import pytest
import torch
from torch import nn

from tracer import Tracer, UsageError
from tracer.replay.workload import load
from tracer.source import source_hash, source_of
from tracer.store import Trace

WORKLOAD = """
from pathlib import Path
from torch import nn
from {helper} import scale

Path({proof!r}).write_text("I was imported")

class Problem:
    def build(self):
        return nn.Linear(2, 1)

    def loss(self, model, batch):
        return scale * model(batch["inputs"]).square().mean()

problem = Problem()
nothing = 3
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A directory on the import path with the package ``mine`` and its workload ``mine.problems:problem``."""
    package = tmp_path / "project" / "mine"
    package.mkdir(parents=True)
    for name in ("__init__", "away"):
        (package / f"{name}.py").write_text(
            f"import pathlib\npathlib.Path({str(tmp_path / 'proof')!r}).write_text('imported {name}')\n"
        )
    (package / "helper.py").write_text("scale = 2.0\n")
    (package / "problems.py").write_text(WORKLOAD.format(helper="mine.helper", proof=str(tmp_path / "proof")))
    monkeypatch.syspath_prepend(tmp_path / "project")
    yield package
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]


def record(path, workload, steps=2):
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Tracer(path, model, optimizer, record_batches=True, workload=workload) as tracer:
        for _ in range(steps):
            optimizer.zero_grad()
            inputs = torch.rand(3, 2)
            loss = tracer.loss(lambda x=inputs: 2.0 * model(x).square().mean(), tensors={"inputs": inputs})
            loss.backward()
            optimizer.step()
    return Trace(path).manifest.workload


def test_recording_names_the_workload_and_imports_nothing(project, tmp_path):
    found = record(tmp_path / "run", "mine.problems:problem")
    assert found["path"] == "mine.problems:problem"
    assert found["source"] == source_hash("mine.problems")
    assert found["threads"] == torch.get_num_threads()
    assert not (tmp_path / "proof").exists()


def test_a_run_without_a_workload_has_the_manifest_it_always_had(tmp_path):
    assert record(tmp_path / "run", None) is None
    assert '"workload"' not in (tmp_path / "run" / "manifest.json").read_text()


def test_what_is_not_allowed_is_never_imported(project, tmp_path):
    recorded = record(tmp_path / "run", "mine.problems:problem")
    for allow in ([], ["mine"], ["mine.problem"], ["mine.problems.more"], ["*"]):
        with pytest.raises(UsageError, match=r"--allow mine\.problems"):
            load(recorded, None, allow)
    assert not (tmp_path / "proof").exists()
    assert not [name for name in sys.modules if name.partition(".")[0] == "mine"]
    assert load(recorded, None, ["mine.problems"]).workload.build().in_features == 2
    assert (tmp_path / "proof").read_text() == "I was imported"


@pytest.mark.parametrize("changed", ["problems.py", "helper.py"])
def test_a_changed_source_is_refused_before_it_runs(project, tmp_path, changed):
    recorded = record(tmp_path / "run", "mine.problems:problem")
    file = project / changed
    file.write_text(file.read_text() + "\nlater = 1\n")
    with pytest.raises(UsageError, match=r"is not what it was when the run was recorded.*--changed-source"):
        load(recorded, None, ["mine.problems"])
    with pytest.raises(UsageError, match="is not what it was"):
        load(recorded, "mine.problems:problem", [])
    assert not (tmp_path / "proof").exists()
    found = load(recorded, None, ["mine.problems"], changed_source=True)
    assert found.changed


def test_the_hash_is_of_what_the_workload_imports_from_its_own_directory(project):
    before = source_hash("mine.problems")
    (project / "away.py").write_text("another = 1\n")
    assert source_hash("mine.problems") == before, "not imported by it"
    (project.parent / "beside.py").write_text("another = 1\n")
    (project / "helper.py").write_text("from . import away\nscale = 2.0\n")
    after = source_hash("mine.problems")
    assert after != before
    (project / "away.py").write_text("another = 2\n")
    assert source_hash("mine.problems") not in (before, after)


def test_a_single_file_and_what_lies_beside_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "alone.py").write_text("import beside_alone, torch\n")
    (tmp_path / "beside_alone.py").write_text("x = 1\n")
    installed = tmp_path / ".venv" / "site-packages"
    installed.mkdir(parents=True)
    monkeypatch.syspath_prepend(installed)
    (installed / "torch_like.py").write_text("x = 1\n")
    before = source_hash("alone")
    (tmp_path / "beside_alone.py").write_text("import torch_like\n")
    after = source_hash("alone")
    (installed / "torch_like.py").write_text("x = 2\n")
    assert before != after == source_hash("alone")


def test_a_path_given_by_the_user_is_allowed_by_that(project, tmp_path):
    assert load(None, "mine.problems:problem", []).path == "mine.problems:problem"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("mine.problems", "expected 'package.module:name'"),
        ("mine/problems:problem", "expected 'package.module:name'"),
        ("__main__:problem", "Of a script train.py it is 'train:name'"),
        ("mine.nowhere:problem", "no Python file of that name is found"),
        ("sys:problem", "no Python file of that name is found"),
    ],
)
def test_a_wrong_path_is_refused_when_recording_and_when_replaying(project, tmp_path, path, says):
    with pytest.raises(UsageError, match=says):
        record(tmp_path / "run", path)
    with pytest.raises(UsageError, match=says):
        load(None, path, [])


@pytest.mark.parametrize("name", ["nothing", "absent"])
def test_an_object_that_is_no_workload_is_refused(project, name):
    with pytest.raises(UsageError, match=r"expected an object with build\(\)"):
        load(None, f"mine.problems:{name}", [])


def test_a_run_that_names_none_says_what_to_do():
    with pytest.raises(UsageError, match=r"--workload package\.module:name"):
        load(None, None, [])


def test_the_file_of_a_module_is_found_without_importing_its_package(project, tmp_path):
    assert source_of("mine.helper") == project / "helper.py"
    assert not (tmp_path / "proof").exists()
