"""The asset graph on a real Dagster instance: what is computed, what stays fresh, what a damaged file stops."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from analysis.proofs import proofs
from analysis.registry import metrics
from analysis.soundness.checks import IDENTITIES, ODDITIES
from pipeline.assets import GROUPS
from pipeline.checks import UNBROKEN, check_name
from pipeline.definitions import build
from pipeline.instance import opened
from pipeline.materialize import Outcome, materialize, metric_selection

STEP_LENGTH = '''"""How far each step goes."""

from analysis.columns import Units, d_d
from analysis.metric import Claim, Metric

metric = Metric(
    name="step_length",
    units=Units(distance=1),
    value=d_d.sqrt(),
    claim=Claim(at_most=1e6, name="short"),
)
'''
BASES = {"trace", "geometry", "replays", "proofs", "verdicts", "report", "comparison"}


@pytest.fixture(scope="module")
def computed(module_home: Path) -> Path:
    """A home in which both runs have been computed."""
    outcomes = materialize(["sgdm", "adamw"])
    assert [failure for outcome in outcomes for failure in outcome.failures] == []
    return module_home


@pytest.fixture
def own_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of the user's own metric files."""
    directory = tmp_path / "own"
    directory.mkdir()
    monkeypatch.setenv("LEMMATA_METRICS", str(directory))
    return directory


def graph(definitions: dg.Definitions) -> BaseAssetGraph[Any]:
    return definitions.resolve_asset_graph()


def names(definitions: dg.Definitions) -> set[str]:
    return {key.path[-1] for key in graph(definitions).get_all_asset_keys()}


def latest(instance: dg.DagsterInstance, asset: str, run_id: str) -> dg.EventLogRecord:
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[run_id])
    (record,) = instance.fetch_materializations(wanted, limit=1).records
    return record


def materializations(instance: dg.DagsterInstance) -> dict[tuple[str, str], int]:
    """Number of the last materialization of every asset and run."""
    return {
        (asset, run_id): latest(instance, asset, run_id).storage_id
        for asset in names(build())
        for run_id in ("sgdm", "adamw")
        if instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[run_id]), limit=1
        ).records
    }


def check_results(instance: dg.DagsterInstance, asset: str, run_id: str) -> dict[str, Any]:
    """The last evaluation of each check of an asset in the latest Dagster runs of a partition."""
    found: dict[str, Any] = {}
    for run in instance.get_runs(filters=dg.RunsFilter(tags={"dagster/partition": run_id})):
        for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
            evaluation = entry.dagster_event.asset_check_evaluation_data
            if evaluation.asset_key == dg.AssetKey(asset):
                found.setdefault(evaluation.check_name, evaluation)
    return found


def staleness(definitions: dg.Definitions, instance: dg.DagsterInstance, run_id: str) -> dict[str, StaleStatus]:
    resolver = CachingStaleStatusResolver(instance, graph(definitions), LoadingContextForTest(instance))
    return {name: resolver.get_status(dg.AssetKey(name), run_id) for name in names(definitions) - {"comparison"}}


def test_there_is_one_asset_per_metric_with_its_fingerprint_and_a_check_per_claim() -> None:
    definitions = build()
    dg.Definitions.validate_loadable(definitions)
    assert names(definitions) == BASES | metrics().keys()
    for name, metric in metrics().items():
        node = graph(definitions).get(dg.AssetKey(name))
        assert (node.group_name, node.code_version) == (GROUPS[metric.family], metric.fingerprint)
        assert metric.formula in (node.description or "")
        assert len(node.check_keys) == len(metric.claims)


def test_every_asset_of_a_recorded_run_is_computed(computed: Path) -> None:
    with opened() as instance:
        trace = latest(instance, "trace", "sgdm").asset_materialization
        assert trace is not None
        assert trace.metadata["steps"].value == 61
        for name in metrics():
            page = latest(instance, name, "sgdm").asset_materialization
            assert page is not None
            measured = pl.read_parquet(page.metadata["path"].value)["value"].is_not_null().any()
            assert ("plot" in page.metadata) == measured
            if measured:
                assert page.metadata["plot"].value.startswith(f"![{name}](data:image/svg+xml;base64,")
            assert page.metadata["verdicts"].records
    verdicts = pl.read_parquet(computed / "tables" / "sgdm" / "verdicts.parquet")
    assert set(verdicts["metric"]) == set(metrics())
    assert (computed / "tables" / "sgdm" / "report.html").stat().st_size > 0


def test_windows_and_tensors_of_a_metric_are_files_named_on_its_page(computed: Path) -> None:
    tables = computed / "tables" / "sgdm"
    with opened() as instance:
        page = latest(instance, "directional_curvature", "sgdm").asset_materialization.metadata
        without = latest(instance, "noise_scale", "sgdm").asset_materialization.metadata
    for name in ("windows", "blocks"):
        path = tables / name / "directional_curvature.parquet"
        assert page[f"{name}, path"].value == str(path)
        assert page[f"{name}, rows"].value == len(pl.read_parquet(path)) > 0
        assert f"{name}, path" not in without  # no half batches: its verdict says so, and there is nothing to list
        assert not (tables / name / "noise_scale.parquet").exists()
    tested = pl.read_parquet(tables / "verdicts.parquet").filter(metric="directional_curvature", pairing="previous")
    assert tested.filter(claim="convex on average")["blocks_tested"].to_list() == [0]  # 60 steps are too few


def test_the_data_version_of_a_trace_is_its_digest(computed: Path) -> None:
    from tracer.store import Trace

    with opened() as instance:
        tags = latest(instance, "trace", "sgdm").asset_materialization.tags
    assert tags["dagster/data_version"] == Trace(computed / "runs" / "sgdm").digest


def test_a_claim_passes_its_check_only_when_it_holds(computed: Path) -> None:
    verdicts = pl.read_parquet(computed / "tables" / "sgdm" / "verdicts.parquet")
    seen = set()
    with opened() as instance:
        for name, metric in metrics().items():
            found = check_results(instance, name, "sgdm")
            assert len(found) == len(metric.claims)
            for claim, evaluation in zip(metric.claims, sorted_as(metric.claims, found), strict=True):
                mine = verdicts.filter(
                    pl.col("metric") == name, pl.col("claim") == claim.name, pl.col("pairing") != "unpaired"
                )
                assert evaluation.passed == (set(mine["status"]) - {"NOT APPLICABLE"} == {"HOLDS"})
                assert evaluation.severity == dg.AssetCheckSeverity.WARN
                assert mine["status"][0] in evaluation.description
                seen.add(evaluation.passed)
    assert seen == {True, False}


def sorted_as(claims: Any, found: dict[str, Any]) -> Iterator[Any]:
    return (found[check_name(claim.name)] for claim in claims)


ODD = {check_name(name) for name, _ in ODDITIES}


def test_identities_of_a_sound_trace_pass_and_block(computed: Path) -> None:
    with opened() as instance:
        found = check_results(instance, "geometry", "sgdm")
    assert {name for name, evaluation in found.items() if not evaluation.passed} == set()
    assert {check_name(name) for name, _ in (*IDENTITIES, *ODDITIES)} | {UNBROKEN} == found.keys()
    assert {name for name, each in found.items() if each.blocking} == {UNBROKEN}
    assert found[UNBROKEN].description.startswith(f"{len(IDENTITIES)} identities hold")


def test_each_proof_is_a_check_with_its_lines_on_the_page(computed: Path) -> None:
    with opened() as instance:
        found = check_results(instance, "proofs", "sgdm")
        page = latest(instance, "proofs", "sgdm").asset_materialization
    assert found.keys() == proofs().keys()
    assert {each.severity for each in found.values()} == {dg.AssetCheckSeverity.WARN}
    assert page is not None
    findings = pl.read_parquet(computed / "tables" / "sgdm" / "proof_findings.parquet")
    for proof, status, reason in findings.select("proof", "status", "reason").iter_rows():
        assert found[proof].description == f"{status}: {reason}"
        assert found[proof].passed == (status == "HOLDS")
        assert all(line.name in page.metadata[proof].value for line in proofs()[proof].lines)
    assert "Proofs, line by line" in (computed / "tables" / "sgdm" / "report.html").read_text(encoding="utf-8")


def test_computing_again_leaves_everything_fresh(computed: Path) -> None:
    definitions = build()
    with opened() as instance:
        assert set(staleness(definitions, instance, "sgdm").values()) == {StaleStatus.FRESH}
    materialize(["sgdm"], ["trace"])
    with opened() as instance:
        assert set(staleness(definitions, instance, "sgdm").values()) == {StaleStatus.FRESH}


def test_a_new_metric_file_is_one_new_asset_and_reads_no_recorded_vector(computed: Path, own_metrics: Path) -> None:
    before = names(build())
    (own_metrics / "step_length.py").write_text(STEP_LENGTH)
    definitions = build()
    assert names(definitions) == before | {"step_length"}
    with opened() as instance:
        old = materializations(instance)
        states = staleness(definitions, instance, "sgdm")
    assert states.pop("step_length") == StaleStatus.MISSING
    assert {name for name, state in states.items() if state != StaleStatus.FRESH} <= {"verdicts", "report"}

    away = computed / "runs-elsewhere"
    (computed / "runs").rename(away)
    try:
        with no_hdf5() as opened_files:
            outcomes = materialize(["sgdm", "adamw"], metric_selection(["step_length"]))
    finally:
        away.rename(computed / "runs")
    assert all(outcome.succeeded for outcome in outcomes)
    assert opened_files, "the watch saw nothing"
    assert not [path for path in opened_files if path.endswith((".h5", ".arrow")) or "/runs/" in path]

    with opened() as instance:
        new = materializations(instance)
        states = staleness(definitions, instance, "sgdm")
    renewed = {asset for (asset, run_id), number in new.items() if old.get((asset, run_id)) != number}
    assert renewed == {"step_length", "verdicts", "report"}
    assert set(states.values()) == {StaleStatus.FRESH}
    verdicts = pl.read_parquet(computed / "tables" / "sgdm" / "verdicts.parquet")
    assert set(verdicts["metric"]) == before - BASES | {"step_length"}


@contextmanager
def no_hdf5() -> Iterator[list[str]]:
    """Refuse h5py, and collect every path this process opens."""
    import h5py

    seen: list[str] = []
    watching = [True]

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "open" and isinstance(arguments[0], str):
            seen.append(arguments[0])

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError(f"HDF5 was opened: {arguments}")

    sys.addaudithook(audit)  # a hook stays for good, so it is switched off at the end
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(h5py, "File", refuse)
        yield seen
    watching.clear()


def test_a_changed_formula_makes_its_own_asset_stale_and_no_other_metric(computed: Path, own_metrics: Path) -> None:
    file = own_metrics / "step_length.py"
    file.write_text(STEP_LENGTH)
    materialize(["adamw"], metric_selection(["step_length"]))
    file.write_text(STEP_LENGTH.replace("d_d.sqrt()", "2 * d_d.sqrt()"))
    with opened() as instance:
        states = staleness(build(), instance, "adamw")
    stale = {name for name, state in states.items() if state == StaleStatus.STALE}
    assert stale - {"verdicts", "report"} == {"step_length"}


def test_a_broken_metric_file_is_one_asset_that_says_why_and_the_rest_is_computed(
    computed: Path, own_metrics: Path
) -> None:
    (own_metrics / "bent.py").write_text("import no_such_package_anywhere\n")
    (own_metrics / "step_length.py").write_text(STEP_LENGTH)
    (outcome,) = materialize(["sgdm"], ["geometry", *metric_selection(["bent", "step_length"])])
    assert [failure.asset for failure in outcome.failures] == ["bent"]
    assert "no_such_package_anywhere" in outcome.failures[0].message
    assert str(own_metrics / "bent.py") in outcome.failures[0].message
    assert set(outcome.computed) == {"geometry", "step_length", "verdicts", "report"}


def test_a_metric_that_fails_while_computing_keeps_its_outdated_verdict_out(computed: Path, own_metrics: Path) -> None:
    file = own_metrics / "step_length.py"
    file.write_text(STEP_LENGTH)
    materialize(["sgdm"], metric_selection(["step_length"]))
    file.write_text(STEP_LENGTH.replace("d_d.sqrt()", "d_d.str.to_uppercase().cast(float)"))
    (outcome,) = materialize(["sgdm"], metric_selection(["step_length"]))
    assert [failure.asset for failure in outcome.failures] == ["step_length"]
    assert {"verdicts", "report"} <= set(outcome.computed)
    verdicts = pl.read_parquet(computed / "tables" / "sgdm" / "verdicts.parquet")
    assert "step_length" not in set(verdicts["metric"])


def test_a_flipped_bit_is_named_and_stops_everything_downstream(home: Path) -> None:
    chunk = home / "runs" / "sgdm" / "chunk-000000.h5"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    (broken,) = materialize(["sgdm"])
    assert [failure.asset for failure in broken.failures] == ["trace"]
    assert str(chunk) in broken.failures[0].message
    assert broken.computed == ()
    assert not (home / "tables" / "sgdm").exists()
    with opened() as instance:
        (evaluation,) = check_results(instance, "trace", "sgdm").values()
    assert (evaluation.passed, evaluation.blocking) == (False, True)
    assert str(chunk) in evaluation.description


def test_a_directory_with_the_name_of_another_run_is_not_computed(home: Path) -> None:
    shutil.copytree(home / "runs" / "sgdm", home / "runs" / "copy")
    (outcome,) = materialize(["copy"])
    assert "'sgdm'" in outcome.failures[0].message


def test_a_metric_of_a_run_without_geometry_says_what_to_do(home: Path) -> None:
    (outcome,) = materialize(["sgdm"], metric_selection(["convexity_gap"]))
    assert isinstance(outcome, Outcome)
    assert "lemmata materialize sgdm" in outcome.failures[0].message
