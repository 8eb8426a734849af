"""docs/scaling.md: what cannot be started here can at least be read, and names settings that there are."""

import ast
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    return found


def settings() -> set[str]:
    """Environment variables that the code reads."""
    texts = (path.read_text(encoding="utf-8") for name in ("tracer", "analysis", "pipeline") for path in walk(name))
    return {name for text in texts for name in re.findall(r"\bLEMMATA_[A-Z]+\b", text)}


def walk(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def test_the_values_for_kubernetes_are_yaml_and_start_the_definitions() -> None:
    values = yaml.safe_load(block("yaml"))
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    assert deployment["dagsterApiGrpcArgs"] == ["-m", "pipeline.definitions"]
    assert {each["name"] for each in deployment["env"]} <= settings()
    assert values["telemetry"] == {"enabled": False}


def test_the_module_for_ray_is_python() -> None:
    tree = ast.parse(block("python"))
    assigned = {target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets}  # type: ignore[attr-defined]
    assert "executor" in assigned


def test_the_page_lists_every_setting_of_a_place_and_says_what_was_not_run() -> None:
    table = set(re.findall(r"^\| `(LEMMATA_[A-Z]+)` \|", PAGE, flags=re.MULTILINE))
    assert table == settings() - {"LEMMATA_METRICS"}
    said = " ".join(PAGE.split())
    assert "this project's tests do not start a cluster" in said
    assert "This project's tests do not start Ray" in said
