"""Metrics of what was replayed: known answers on recorded runs, through trace, replay, files and tables."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from numpy.testing import assert_allclose

from analysis.columns import AT_REFERENCE
from analysis.columns_of_replays import REPLAY_COLUMNS
from analysis.measure import measure, measure_all
from analysis.registry import metrics
from analysis.replay_columns import depends_on_replay
from tests.replay_problems import HESSIAN
from tests.replayed_tables import replayed_run
from tests.walks import of, verdict
from tracer.replay.replay import Asked
from tracer.store import Trace

METRICS = metrics()
OURS = [m for m in METRICS.values() if set(m.columns) & REPLAY_COLUMNS.keys()]
LR, STEPS, WINDOW = 0.3, 104, 5
TOP = np.linalg.eigvalsh(HESSIAN)[-1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("replayed")


@pytest.fixture(scope="module")
def quadratic(folder):
    """A noisy run on xᵀHx/2 + ⟨z, x⟩ of which everything was replayed: tables, points, minibatches."""
    tables = replayed_run(folder, "quadratic", STEPS, LR, probes=["look_back"])
    trace = Trace(folder / "runs" / "run")
    x = np.concatenate([chunk.x for chunk in trace.chunks()])
    return tables, x, np.stack([trace.batches(t)[0].tensors["z"] for t in range(STEPS)])


def squares(d):
    return np.einsum("...i,ij,...j->...", d, HESSIAN, d)


def whole(x):
    return squares(x) / 2


def test_the_midpoint_defect_is_an_eighth_of_the_curvature(quadratic):
    tables, x, _ = quadratic
    expected = -squares(np.diff(x[:STEPS], axis=0)) / 8
    assert_allclose(of("midpoint_defect", tables), expected, atol=1e-14)
    assert verdict("midpoint_defect", "below the chord at every step", tables)["status"] == "HOLDS"
    nodes = np.append((np.polynomial.legendre.leggauss(5)[0] + 1) / 2, 0.5)
    largest = 4 * expected * (nodes * (1 - nodes)).min() * 1.0
    assert_allclose(of("midpoint_defect", tables, column="largest_inside"), largest, atol=1e-14)


def test_the_gap_of_a_tensor_moved_alone_is_half_of_its_own_curvature(quadratic):
    tables, x, _ = quadratic
    d = np.diff(x[:STEPS], axis=0)
    parts = [np.where(np.arange(5) < 2, d, 0), np.where(np.arange(5) < 2, 0, d)]
    gaps = np.stack([-squares(part) / 2 for part in parts])
    assert_allclose(of("block_gap", tables), gaps.max(axis=0), atol=1e-14)
    measured = measure(METRICS["block_gap"], tables)
    assert set(measured.blocks["block"]) == {"first", "second"}
    windows = measured.windows.filter(pl.col("window") == "run", pl.col("block").cast(pl.String) != "model")
    assert_allclose(windows.sort("block")["mean"], gaps.mean(axis=1), rtol=1e-12)


def test_differences_along_the_curve_of_the_whole_data(quadratic):
    tables, x, _ = quadratic
    f, gg = whole(x), ((x @ HESSIAN) ** 2).sum(axis=1)
    assert_allclose(of("full_curve_convexity", tables), f[2:] - 2 * f[1:-1] + f[:-2], atol=1e-14)
    assert_allclose(of("full_gradient_monotone", tables), np.diff(gg)[: STEPS - 1], atol=1e-14)
    assert_allclose(of("polyak_lojasiewicz_full", tables), (gg / (2 * f))[1:STEPS])
    above = of("polyak_lojasiewicz_full", tables, column="above_the_lowest")
    with np.errstate(divide="ignore"):
        expected = (gg / (2 * (f - f.min())))[1:STEPS]
    assert_allclose(above[np.isfinite(above)], expected[np.isfinite(expected)], rtol=1e-9)


def test_claims_about_gradient_descent_are_not_made_of_minibatches(quadratic):
    for metric, claim in (
        ("full_curve_convexity", "a convex curve under gradient descent"),
        ("full_gradient_monotone", "shorter under gradient descent"),
    ):
        found = verdict(metric, claim, quadratic[0])
        assert found["status"] == "NOT APPLICABLE"
        assert "no recorded step is of the kind" in found["reason"]


@pytest.mark.parametrize(("lr", "status"), [(0.3, "HOLDS"), (2.2 / TOP, "FAILS")])
def test_descent_on_the_whole_data_is_told_from_its_loss_and_gradient(tmp_path, monkeypatch, lr, status):
    monkeypatch.setattr("tests.replay_problems.Quadratic.draw", lambda self, random: next(iter(self.full_data())))
    tables = replayed_run(tmp_path, "quadratic", STEPS, lr, Asked(full_batch=1))
    found = verdict("full_gradient_monotone", "shorter under gradient descent", tables)
    assert (found["status"], found["pairs"]) == (status, STEPS - 1)
    if status == "HOLDS":
        name = "a convex curve under gradient descent"
        assert verdict("full_curve_convexity", name, tables)["status"] == "HOLDS"


def test_the_jensen_gap_is_half_the_spread_of_the_window(quadratic):
    tables, x, _ = quadratic
    ends = range(WINDOW - 1, STEPS, WINDOW)
    spread = [-squares(w - w.mean(axis=0)).mean() / 2 for w in (x[e - WINDOW + 1 : e + 1] for e in ends)]
    found = of("jensen_gap", tables)
    assert_allclose(found[[e - 1 for e in ends]], spread, atol=1e-14)
    assert np.isnan(found).sum() == STEPS - 1 - len(spread)
    assert verdict("jensen_gap", "the mean point is better on average", tables)["pairs"] == len(spread)


def test_curvature_and_sharpness_are_those_of_the_hessian(quadratic):
    tables, x, _ = quadratic
    d = np.diff(x[:STEPS], axis=0)
    assert_allclose(of("curvature_along_step", tables), squares(d) / (d**2).sum(axis=1), rtol=1e-9)
    for name in ("sharpness", "minibatch_sharpness"):
        assert_allclose(of(name, tables), np.full(STEPS - 1, TOP), rtol=1e-6)
        assert_allclose(of(name, tables, column="stability_limit"), np.full(STEPS - 1, 2 / LR))
    ratio = np.linalg.norm(d @ HESSIAN, axis=1) / np.linalg.norm(d, axis=1) / TOP
    assert_allclose(of("smoothness_to_sharpness", tables), ratio, rtol=1e-6)
    found = verdict("sharpness", "below the limit of stability on average", tables)
    assert found["status"] == "HOLDS"
    assert found["estimate"] == pytest.approx(TOP * LR / 2)


def test_interpolation_reads_the_losses_and_gradients_that_were_replayed_at_the_reference(quadratic):
    tables, x, z = quadratic
    assert_allclose(of("interpolation", tables, "reference:initial"), whole(x[0]) + z @ x[0], rtol=1e-12)
    found = verdict("interpolation", "gradients vanish there", tables, "reference:initial")
    there, along = (((points @ HESSIAN + z) ** 2).sum() for points in (x[:1], x[:STEPS]))
    assert (found["numerator"], found["denominator"]) == (pytest.approx(there), pytest.approx(along))
    assert found["status"] == "FAILS"


def test_effective_smoothness_is_the_stretch_of_the_gradient(quadratic):
    tables, x, z = quadratic
    g = x[1:STEPS] @ HESSIAN + z[1:]
    expected = np.linalg.norm(g @ HESSIAN, axis=1) / np.linalg.norm(g, axis=1)
    assert_allclose(of("effective_smoothness", tables), expected, rtol=1e-9)
    assert verdict("effective_smoothness", "below 2/lr at 90 % of the steps", tables)["status"] == "HOLDS"
    lines = tables.replayed.along_gradient().filter(step=3).collect()
    assert_allclose(lines["rate"].to_numpy(), LR * np.array([0.25, 0.5, 1, 2, 4]))
    at = x[3] - lines["rate"].to_numpy()[:, None] * g[2]
    assert_allclose(lines["loss"].to_numpy(), squares(at) / 2 + at @ z[3], rtol=1e-12)
    assert_allclose(lines["loss_x"].to_numpy(), whole(x[3]) + x[3] @ z[3], rtol=1e-12)


def test_effective_smoothness_is_the_largest_of_all_lengths(tmp_path):
    """On (uv − 1)²/2 the gradient is no line: the answer depends on the length, and no length is left out."""
    tables = replayed_run(tmp_path, "two_layer", 6, 0.3, Asked(along_gradient=1))
    lines = tables.replayed.along_gradient().filter(pl.col("step") > 0).collect()

    def gradient(u, v):
        return (u * v - 1) * np.array([v, u])

    x = np.concatenate([chunk.x for chunk in Trace(tmp_path / "runs" / "run").chunks()])
    for (step,), rows in lines.group_by("step", maintain_order=True):
        g = gradient(*x[step])
        rates = rows["rate"].to_numpy()
        changes = [np.linalg.norm(gradient(*(x[step] - r * g)) - g) / (r * np.linalg.norm(g)) for r in rates]
        assert_allclose(rows["slope"].to_numpy(), changes, rtol=1e-9)
        assert len(set(np.round(changes, 6))) == 5
        assert of("effective_smoothness", tables)[step - 1] == pytest.approx(max(changes))


def test_critical_sharpness_is_the_curvature_along_the_step_over_its_slope(quadratic):
    tables, x, z = quadratic
    u = np.diff(x, axis=0) / LR
    gradients = {"critical_sharpness": x[:STEPS] @ HESSIAN, "minibatch_critical_sharpness": x[:STEPS] @ HESSIAN + z}
    for name, g in gradients.items():
        exact = (squares(u) / -(u * g).sum(axis=1))[1:]
        found = of(name, tables)
        known = np.isfinite(found)
        assert known.sum() > STEPS / 2
        assert (exact[~known] <= 0).all()  # uphill at once
        assert_allclose(found[known], exact[known], rtol=1 / 16)


def test_update_correlation_at_a_reference_point(quadratic):
    tables, x, z = quadratic
    d = np.diff(x[:STEPS], axis=0)
    for name, at in (("last", x[-1]), ("initial", x[0])):
        expected = ((HESSIAN @ at + z[1:]) * d).sum(axis=1)
        found = of("reference_update_correlation", tables, f"reference:{name}")
        assert np.isnan(found[0])  # no step made the first point
        assert_allclose(found[1:], expected, atol=1e-13)
    shares = measure(METRICS["reference_update_correlation"], tables).windows.filter(
        pl.col("window") == "run", pl.col("pairing").cast(pl.String) == "reference:last"
    )
    of_model = shares.filter(pl.col("block").cast(pl.String) == "model")["total"].item()
    assert shares.filter(pl.col("block").cast(pl.String) != "model")["total"].sum() == pytest.approx(of_model)


def test_the_allocation_adds_up_and_is_each_tensors_share(quadratic):
    tables, x, z = quadratic
    change = [whole(x[t]) - whole(x[t - 1]) + z[t] @ (x[t] - x[t - 1]) for t in range(1, STEPS)]
    assert_allclose(of("path_allocation", tables), change, atol=1e-13)
    assert verdict("path_allocation", "adds up to the loss change", tables)["status"] in ("HOLDS", "INCONCLUSIVE")
    paired = (pl.col("window") == "run") & (pl.col("pairing").cast(pl.String) == "previous")
    windows = measure(METRICS["path_allocation"], tables).windows.filter(paired)
    of_model = pl.col("block").cast(pl.String) == "model"
    assert windows.filter(of_model)["total"].item() == pytest.approx(windows.filter(~of_model)["total"].sum())


def test_adam_stands_below_the_limit_of_its_own_metric(tmp_path):
    tables = replayed_run(tmp_path, "quadratic", STEPS, 0.01, Asked(sharpness=1), optimizer=torch.optim.Adam)
    assert_allclose(of("adam_sharpness", tables, column="stability_limit"), np.full(STEPS - 1, 38 / 0.01))
    assert (of("adam_sharpness", tables) > 0).all()
    found = verdict("sharpness", "below the limit of stability on average", tables)
    assert (found["status"], "see adam_sharpness" in found["reason"]) == ("NOT APPLICABLE", True)


def test_a_product_of_two_numbers_is_convex_in_each_and_not_in_both(tmp_path):
    tables = replayed_run(tmp_path, "two_layer", STEPS, 0.6, Asked(profile=2, block_gaps=1))
    assert (of("block_gap", tables) <= 1e-15).all()
    assert verdict("midpoint_defect", "below the chord at every step", tables)["status"] == "FAILS"


@pytest.mark.parametrize("metric", OURS, ids=lambda m: m.name)
def test_without_a_replay_it_is_not_applicable_and_says_how_to_replay(metric, folder):
    tables = replayed_run(folder / "bare" / metric.name, "quadratic", 3, LR, None)
    for row in measure(metric, tables).verdicts.to_dicts():
        if row["pairing"] != "unpaired" and "stated for" not in row["reason"]:
            assert row["status"] == "NOT APPLICABLE"
            assert "run `lemmata replay run --" in row["reason"]


def test_a_run_without_its_minibatches_says_that_it_has_to_be_recorded_again(tmp_path):
    tables = replayed_run(tmp_path, "quadratic", 3, LR, None)
    bare = replace(tables, facts=replace(tables.facts, has_batches=False))
    found = verdict("sharpness", "does not keep growing", bare)
    assert "recorded without them (record_batches=True)" in found["reason"]


def test_a_table_that_is_not_complete_and_a_replay_of_another_state_are_left_out(quadratic):
    tables, _, _ = quadratic
    index = tables.replayed.index
    unfinished = {name: {**entry, "complete": False} for name, entry in index.tables.items()}
    tables.replayed.index = replace(index, tables=unfinished)
    try:
        for metric in OURS:
            assert measure(metric, tables).table["value"].null_count() == len(measure(metric, tables).table)
    finally:
        tables.replayed.index = index


def test_what_depends_on_a_replay():
    depends = {m.name for m in METRICS.values() if depends_on_replay(m.all_columns, m.pairings)}
    assert {m.name for m in OURS} <= depends
    assert {"reference_gap", "convexity_ratio", "reference_smoothness"} <= depends
    assert "convexity_gap" in depends, "σ_f is in its tolerance"
    assert not {"smoothness", "update_correlation"} & depends
    assert AT_REFERENCE


def test_every_metric_is_measured_on_a_replayed_run(quadratic):
    for name, measured in measure_all(OURS, quadratic[0]).items():
        if name != "adam_sharpness":
            assert measured.table["value"].is_finite().any(), name
