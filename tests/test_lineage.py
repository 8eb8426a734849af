"""The lineage page explains the method: every asset says what it is, whose, made of what, with which columns."""

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from analysis import registry
from analysis.columns import COLUMNS
from analysis.judging.verdict_table import VERDICT_SCHEMA
from analysis.metric import Metric
from analysis.pages.across import ANSWER_SCHEMA
from analysis.proving.prove import LINE_SCHEMA
from analysis.registry import metrics
from pipeline import lineage, meanings
from pipeline.assets import GROUPS
from pipeline.definitions import build
from tracer.store.layout import record_schema

METHOD = ["recorded", "geometry", "replay", *GROUPS.values(), "proofs", "verdicts", "report", "comparison"]
OWN = Path(__file__).resolve().parents[1] / "examples" / "metrics"


@pytest.fixture(scope="module")
def nodes() -> dict[str, Any]:
    graph = build().resolve_asset_graph()
    return {key.path[-1]: graph.get(key) for key in graph.get_all_asset_keys()}


def test_every_asset_explains_itself(nodes: dict[str, Any]) -> None:
    for name, node in nodes.items():
        assert node.group_name in METHOD, name
        assert node.kinds, name
        assert node.owners == lineage.OWNERS, name
        assert len(node.description or "") > 40, name
        assert node.code_version, name
        assert Path(node.metadata["source"].path).is_file() or name == "verdicts", name
        if "html" not in node.kinds or name == "comparison":
            schema = node.metadata["dagster/column_schema"]
            assert schema.columns, name
            assert [column.name for column in schema.columns if not column.description] == [], name


def test_every_group_of_the_method_has_an_asset(nodes: dict[str, Any]) -> None:
    assert {node.group_name for node in nodes.values()} == set(METHOD)


def test_a_metric_says_formula_source_unit_and_claims(nodes: dict[str, Any]) -> None:
    for name, metric in metrics().items():
        node = nodes[name]
        assert all(text in node.description for text in (metric.formula, str(metric.units), metric.paper or "none"))
        assert all(claim.name in node.description for claim in metric.claims)
        assert node.tags[lineage.TAG("family")] == metric.family
        assert Path(node.metadata["source"].path).stem == name
        value = next(c for c in node.metadata["dagster/column_schema"].columns if c.name == "value")
        assert f"[{metric.units}]" in value.description


def test_the_only_asset_without_partitions_depends_on_all_runs(nodes: dict[str, Any]) -> None:
    assert [name for name, node in nodes.items() if not node.is_partitioned] == ["comparison"]
    assert {key.path[-1] for key in nodes["comparison"].parent_keys} == {"verdicts", "proofs"}


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (meanings.VERDICTS, VERDICT_SCHEMA.names()),
        (meanings.LINES, LINE_SCHEMA.names()),
        (meanings.ANSWERS, ANSWER_SCHEMA.names()),
        (meanings.RECORDS, record_schema(()).names),
    ],
)
def test_every_column_has_a_meaning_and_no_meaning_is_left_over(texts: dict[str, str], names: list[str]) -> None:
    assert list(texts) == names


def columns(made: dict[str, Any]) -> dict[str, set[tuple[str, str]]]:
    found = made["dagster/column_lineage"].deps_by_column
    return {name: {(dep.asset_key.path[-1], dep.column_name) for dep in deps} for name, deps in found.items()}


def schema_names(schema: dg.TableSchema) -> set[str]:
    return {column.name for column in schema.columns}


def test_column_lineage_goes_from_vectors_to_verdicts() -> None:
    pairs = columns(lineage.columns_of_geometry())
    assert pairs["gx_d"] == {("trace", "g"), ("trace", "x")}
    assert pairs["dg_dg"] == {("trace", "g"), ("trace", "h")}
    assert pairs["gy_gy"] == {("trace", "h")}
    assert pairs["loss_x"] == {("trace", "loss")}
    of_gap = columns(lineage.columns_of_metric(metrics()["convexity_gap"]))
    assert of_gap["value"] == {("geometry", "loss_x"), ("geometry", "loss_y"), ("geometry", "gx_d")}
    assert of_gap["value"] <= of_gap["running_mean"]
    assert ("convexity_gap", "value") in columns(lineage.columns_of_verdicts(metrics()))["estimate"]


def test_column_lineage_names_only_columns_that_are_there() -> None:
    known = {
        "trace": schema_names(lineage.of_trace()),
        "geometry": schema_names(lineage.of_geometry()),
        "replays": schema_names(lineage.of_replays()),
        "verdicts": schema_names(lineage.of_verdicts()),
    }
    known |= {name: schema_names(lineage.of_metric(metric)) for name, metric in metrics().items()}
    made = [
        ("geometry", lineage.columns_of_geometry()),
        ("verdicts", lineage.columns_of_verdicts(metrics())),
        *((name, lineage.columns_of_metric(metric)) for name, metric in metrics().items()),
    ]
    for asset, page in made:
        for column, deps in columns(page).items():
            assert column in known[asset]
            assert all(name in known[of] for of, name in deps)
    described = known["geometry"] | known["replays"]
    assert all(name in described for name, column in COLUMNS.items() if column.table != "facts")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LEMMATA_METRICS", str(tmp_path))
    return tmp_path


def written(directory: Path, name: str, old: str = "", new: str = "") -> None:
    text = (OWN / "gradient_cosine.py").read_text(encoding="utf-8")
    (directory / f"{name}.py").write_text(text.replace(old, new) if old else text, encoding="utf-8")


def test_a_metric_of_ones_own_has_a_group_and_owner_to_itself(own: Path) -> None:
    written(own, "gradient_cosine")
    graph = build().resolve_asset_graph()
    node = graph.get(dg.AssetKey("gradient_cosine"))
    assert (node.group_name, list(node.owners)) == ("your_own", lineage.YOURS)
    assert node.metadata["source"].path == str(own / "gradient_cosine.py")


def test_whatever_is_wrong_with_a_metric_is_one_node_that_says_so(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own / "no_python.py").write_text("this is (not python", encoding="utf-8")
    written(own, "reserved", '"gradient_cosine"', '"dict"')  # Dagster keeps this name for itself
    written(own, "taken", '"gradient_cosine"', '"verdicts"')
    twins = 'claims=(Claim(at_least=0, name="a b"), Claim(at_least=0, name="a-b"))'  # two checks of one name
    written(own, "twins", 'claim=Claim(at_least=0, over="on average")', twins)
    written(own, "_by_entry_point", '"gradient_cosine"', '"offered"')
    monkeypatch.syspath_prepend(str(own))
    points = (
        EntryPoint("good", "_by_entry_point:metric", registry.GROUP),
        EntryPoint("bad", "no_such_module:metric", registry.GROUP),
    )
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    definitions = build()
    dg.Definitions.validate_loadable(definitions)
    graph = definitions.resolve_asset_graph()
    names = {key.path[-1] for key in graph.get_all_asset_keys()}
    broken = {name: graph.get(dg.AssetKey(name)) for name in names if lineage.TAG("broken") in tags(graph, name)}
    said = " ".join(node.description for node in broken.values())
    for part in ("never closed", "reserved keyword", "'verdicts'", "a_b", "no_such_module"):
        assert part in said
    assert len(broken) == 5
    assert {node.group_name for node in broken.values()} == {"your_own"}
    good = {name: metric for name, metric in metrics().items() if name in names}
    assert isinstance(good["offered"], Metric)
    assert {key.path[-1] for key in graph.get(dg.AssetKey("verdicts")).parent_keys} & broken.keys() == set()


def tags(graph: Any, name: str) -> dict[str, str]:
    return dict(graph.get(dg.AssetKey(name)).tags)
