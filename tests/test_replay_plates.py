"""Figures of a replay: what is drawn, what is chosen, and what is said where nothing was replayed."""

import numpy as np
import polars as pl
import pytest

from analysis.measure import measure_all
from analysis.pages.gallery import NEEDS, OF_REPLAYS, PLATES, worth_drawing
from analysis.pages.measured import Measured
from analysis.pages.replay_plates import chosen_steps
from analysis.registry import metrics
from tests.replayed_tables import replayed_run
from tests.test_plates import labels, words
from tracer.replay.replay import Asked

ASKED = Asked(references=("last",), profile=3, full_batch=2, critical=2, sharpness=4)


def measured(tables):
    names = sorted({name for plate in OF_REPLAYS for name in NEEDS[plate]} | {"reference_gap"})
    found = measure_all([metrics()[name] for name in names], tables)
    drawn = {name: (each.table, each.verdicts) for name, each in found.items()}
    profile = None if tables.replayed is None else tables.replayed.profile().collect()
    return Measured("run", drawn, tables.steps.collect(), profile)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plates")
    return measured(replayed_run(folder, "quadratic", 30, 0.3, ASKED, probes=["look_back"]))


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return measured(replayed_run(tmp_path_factory.mktemp("bare"), "quadratic", 5, 0.3, None))


def test_every_plate_draws_metrics_that_are_there():
    assert PLATES.keys() == NEEDS.keys()
    assert {name for needed in NEEDS.values() for name in needed} <= metrics().keys()


def test_without_a_replay_none_is_drawn_and_what_is_missing_is_said(bare):
    for name, plate in OF_REPLAYS.items():
        assert not worth_drawing(name, bare)
        assert (
            "lemmata replay run --" in words(plate(bare)).replace("\n", " ") or name == "smoothness_against_sharpness"
        )


def test_with_a_replay_all_are_drawn(data):
    for name in OF_REPLAYS:
        assert worth_drawing(name, data)
        fig = OF_REPLAYS[name](data)
        fig.draw_without_rendering()
        assert fig.axes[0].lines


def test_smoothness_stands_beside_sharpness_and_two_over_lr(data):
    fig = OF_REPLAYS["smoothness_against_sharpness"](data)
    found = labels(fig)
    assert {"sharpness of F", "sharpness of z_t", "critical sharpness of F", "2 / lr", "a step"} <= set(found)
    assert "limit with momentum" not in found  # there is none
    drawn = {line.get_label(): line for line in fig.axes[0].lines}
    np.testing.assert_allclose(drawn["2 / lr"].get_ydata(), 2 / 0.3)


def test_the_frozen_ratio_and_its_sums_agree(data):
    left, right = OF_REPLAYS["frozen_reference"](data).axes
    ratio = {line.get_label(): line.get_ydata() for line in left.lines}
    sums = {line.get_label(): line.get_ydata() for line in right.lines}
    slopes = sums["Σ ⟨∇f(x), x − x_T⟩, the numerator"]
    above = sums["Σ (f(x, z_t) − f(x_T, z_t)), re-evaluated"]
    np.testing.assert_allclose(slopes / above, ratio["f(x_T, z_t), re-evaluated on each z_t"])
    losses = data.steps["loss"].to_numpy()[: len(slopes)]
    np.testing.assert_allclose(sums["Σ (f(x, z_t) − f(x_T)), frozen"], np.cumsum(losses - losses[-1]), atol=1e-12)


def test_profiles_are_spread_over_the_run_and_the_worst_is_among_them(data):
    steps = chosen_steps(data)
    assert (len(steps), steps[0], steps[-1]) == (12, 1, 29)
    table, verdicts = data.found["midpoint_defect"]
    bent = table.with_columns(value=pl.when(pl.col("step") == 14).then(1.0).otherwise("value"))
    assert 14 in chosen_steps(Measured("run", {"midpoint_defect": (bent, verdicts)}, data.steps, data.profile))
