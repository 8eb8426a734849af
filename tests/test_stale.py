"""What is stale: exactly what would come out of other content or other code, on real files and a real instance."""

import shutil
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest
from polars.testing import assert_frame_equal

from analysis import registry
from analysis.tables import TableStore
from pipeline.compute import Graph
from pipeline.definitions import build
from pipeline.instance import opened
from pipeline.materialize import materialize
from pipeline.rerun import rerun
from pipeline.results import measurements, verdicts_of
from pipeline.stale import Node, StampedStore, current, stale, stamp_of
from tests.by_hand import manifest
from tests.rerun_homes import BASES, FEW, OWN, ROWS, few_metrics, go_on, last, other_kernel, record, stale_of
from tracer.errors import FormatError
from tracer.store import home
from tracer.store.run_writer import RunWriter

EVERYTHING = BASES | set(FEW)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which two runs have been computed; copied for each test."""
    root = tmp_path_factory.mktemp("stale") / "home"
    with pytest.MonkeyPatch.context() as patch:
        settle(patch, root)
        record("one")
        record("two")
        assert stale_of("one", "two") == {"one": EVERYTHING, "two": EVERYTHING}
        assert recomputed() == {"one": EVERYTHING, "two": EVERYTHING}
    return root


@pytest.fixture
def computed(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "home")
    settle(monkeypatch, tmp_path / "home")
    (tmp_path / "own").mkdir()
    monkeypatch.setenv("LEMMATA_METRICS", str(tmp_path / "own"))
    return tmp_path


def settle(patch: pytest.MonkeyPatch, root: Path) -> None:
    for name in ("LEMMATA_METRICS", "LEMMATA_EXECUTOR", "DAGSTER_HOME"):
        patch.delenv(name, raising=False)
    patch.setenv("LEMMATA_HOME", str(root))
    few_metrics(patch)


def recomputed(*run_ids: str) -> dict[str, set[str]]:
    """Rerun what is stale; what was computed by run. Afterwards nothing is stale."""
    names = run_ids or ("one", "two")
    outcomes = rerun(names, jobs=1)
    assert [failure for outcome in outcomes for failure in outcome.failures] == []
    assert not any(stale_of(*names).values())
    return {outcome.run_id: set(outcome.computed) for outcome in outcomes}


def test_what_has_been_computed_is_not_stale_and_a_new_run_is(computed: Path) -> None:
    assert stale_of("one", "two") == {"one": set(), "two": set()}
    assert rerun(["one", "two"], jobs=1) == []
    record("three")
    assert stale_of("one", "three") == {"one": set(), "three": EVERYTHING}


def test_a_grown_run_is_stale_whole_and_no_other(computed: Path) -> None:
    go_on(home.runs_root() / "one", 6, 9)
    assert stale_of("one", "two") == {"one": EVERYTHING, "two": set()}
    assert recomputed() == {"one": EVERYTHING}


def test_a_changed_formula_makes_its_metric_stale_and_what_gathers_it(computed: Path) -> None:
    file = computed / "own" / "own.py"
    gathered = {"own", "verdicts", "report"}
    for text in (OWN, OWN.replace("d_d.sqrt()", "2 * d_d.sqrt()")):
        file.write_text(text)
        assert stale_of("one", "two") == {"one": gathered, "two": gathered}
        assert recomputed("one") == {"one": gathered}
    assert stale_of("one", "two") == {"one": set(), "two": gathered}


def test_a_changed_kernel_makes_all_but_the_trace_stale(computed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_kernel(monkeypatch)
    assert stale_of("one", "two") == dict.fromkeys(("one", "two"), EVERYTHING - {"trace"})
    assert recomputed("two") == {"two": EVERYTHING - {"trace"}}
    assert stale_of("one", "two") == {"one": EVERYTHING - {"trace"}, "two": set()}


@pytest.mark.parametrize(
    ("file", "stale"),
    [
        ("metrics/smoothness", {"smoothness"}),
        ("verdicts/smoothness", {"smoothness"}),
        ("path", {"geometry", "replays"}),
    ],
)
def test_a_deleted_table_is_computed_again_and_nothing_else(computed: Path, file: str, stale: set[str]) -> None:
    path = TableStore(home.tables_root(), "one").path(file)
    before = path.read_bytes()
    path.unlink()
    assert stale_of("one", "two") == {"one": stale, "two": set()}
    assert recomputed() == {"one": stale}
    assert path.read_bytes() == before


def test_a_renamed_run_is_refused_and_its_own_name_finds_everything_fresh(computed: Path) -> None:
    renamed = home.runs_root() / "another"
    (home.runs_root() / "one").rename(renamed)
    assert stale_of("one", "another") == {"one": set(), "another": EVERYTHING}
    (outcome,) = rerun(["one", "another"], jobs=1)
    assert (outcome.run_id, outcome.computed) == ("another", ())
    assert "this is the run 'one'" in outcome.failures[0].message
    shutil.copytree(home.tables_root() / "one", home.tables_root() / "another")
    assert stale_of("another") == {"another": EVERYTHING}, (
        "the tables of a run under the name of another are not its own"
    )
    renamed.rename(home.runs_root() / "one")
    assert stale_of("one") == {"one": set()}


def test_tables_alone_say_what_is_stale_and_are_rerun_without_the_recording(computed: Path) -> None:
    shutil.rmtree(home.runs_root() / "one")
    (computed / "own" / "own.py").write_text(OWN)
    TableStore(home.tables_root(), "one").path("metrics/smoothness").unlink()
    nodes = Graph.of(build()).nodes.values()
    found = stale(TableStore(home.tables_root(), "one"), nodes)
    assert set(found) == {"own", "smoothness", "verdicts", "report"}
    assert recomputed("one") == {"one": set(found)}


def test_the_versions_in_the_files_are_those_dagster_gives_and_its_page_calls_all_fresh(computed: Path) -> None:
    def versions() -> dict[str, str]:
        found = {name: last(instance, name, "one") for name in EVERYTHING}
        return {name: (each.tags or {})["dagster/data_version"] for name, each in found.items() if each}

    with opened() as instance:
        reported = versions()
        resolver = CachingStaleStatusResolver(instance, build().resolve_asset_graph(), LoadingContextForTest(instance))
        assert {resolver.get_status(dg.AssetKey(name), "one") for name in EVERYTHING} == {StaleStatus.FRESH}
    assert reported.keys() == EVERYTHING
    materialize(["one"])
    assert not stale_of("one")["one"]
    with opened() as instance:
        assert versions() == reported


def test_an_asset_that_the_instance_does_not_know_is_computed_again(computed: Path) -> None:
    shutil.rmtree(home.dagster_home())
    assert stale_of("one") == {"one": EVERYTHING}
    assert not stale(TableStore(home.tables_root(), "one"), Graph.of(build()).nodes.values()), "the files are current"


def test_nothing_is_written_of_inputs_that_were_replaced_meanwhile(
    computed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = Graph.of(build()).nodes
    into = StampedStore(home.tables_root(), "one", nodes["smoothness"])
    values = into.scan("metrics/smoothness").collect()
    go_on(home.runs_root() / "one", 6, 9)
    rerun(["one"], jobs=1)
    after = into.path("metrics/smoothness").read_bytes()
    with pytest.raises(FormatError, match="replaced meanwhile"):
        into.write("metrics/smoothness", values)
    assert into.path("metrics/smoothness").read_bytes() == after


def test_a_run_that_grows_while_it_is_computed_is_said_to_be_recorded(computed: Path) -> None:
    into = StampedStore(home.tables_root(), "one", Graph.of(build()).nodes["geometry"])
    values = into.scan("geometry").collect()
    writer = RunWriter(home.runs_root() / "one", manifest("one"), resume_at=6)
    writer.append(6, {"time_ns": 6, "finite": True, "loss": 6.0}, {s: v[6] for s, v in ROWS.items()})
    writer.flush()
    with pytest.raises(FormatError, match=r"one: it is still being recorded.*has ended"):
        into.write("geometry", values)
    writer.close("finished")
    with pytest.raises(FormatError, match="replaced meanwhile"):
        into.write("geometry", values)


def test_tables_of_two_computations_beside_each_other_are_not_read(computed: Path) -> None:
    store = TableStore(home.tables_root(), "one")
    old = store.path("path").read_bytes()
    go_on(home.runs_root() / "one", 6, 9)
    rerun(["one"], jobs=1)
    store.path("path").write_bytes(old)
    assert stamp_of(store, "geometry") is None
    with pytest.raises(FormatError, match="lemmata rerun --stale one"):
        store.tables()


def test_an_outdated_number_never_stands_beside_current_ones(computed: Path) -> None:
    store, known = TableStore(home.tables_root(), "one"), Graph.of(build()).nodes
    metrics = {name: each for name, each in registry.metrics().items() if name in FEW}
    assert set(measurements(store, metrics)) == set(FEW)
    into = StampedStore(home.tables_root(), "one", Node("smoothness", "another formula", ("geometry",)))
    into.write("verdicts/smoothness", store.scan("verdicts/smoothness").collect())
    assert set(measurements(store, metrics)) == set(FEW) - {"smoothness"}
    assert current(store, "smoothness", known["smoothness"].code, {}) is None


def test_verdicts_that_were_gathered_are_those_of_the_metrics_files(computed: Path) -> None:
    store = TableStore(home.tables_root(), "one")
    metrics = {name: each for name, each in registry.metrics().items() if name in FEW}
    before = verdicts_of(store, metrics)
    for name in FEW:
        alone = store.scan(f"verdicts/{name}").collect().drop("digest")
        assert_frame_equal(before[name], alone)  # the same columns, types and rows
        assert len(alone)
    # computed since, from something else: what was gathered is of before
    since = store.scan("verdicts/smoothness").collect().with_columns(says=pl.lit("since"))
    into = StampedStore(
        home.tables_root(), "one", Node("smoothness", metrics["smoothness"].fingerprint, ("geometry", "x"))
    )
    into.write("metrics/smoothness", store.scan("metrics/smoothness").collect())
    into.write("verdicts/smoothness", since)
    assert set(verdicts_of(store, metrics)["smoothness"]["says"]) == {"since"}
    assert_frame_equal(verdicts_of(store, metrics)["convexity_gap"], before["convexity_gap"])


def test_a_metric_whose_file_is_gone_has_no_verdict_though_it_was_gathered(computed: Path) -> None:
    store = TableStore(home.tables_root(), "one")
    metrics = {name: each for name, each in registry.metrics().items() if name in FEW}
    store.path("verdicts/smoothness").unlink()
    assert set(verdicts_of(store, metrics)) == set(FEW) - {"smoothness"}
