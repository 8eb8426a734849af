"""The example on the edge of stability, on fewer digits: sharpness rises to its limit and hovers there, or does not."""

import importlib
import sys
from pathlib import Path

import polars as pl
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def example():
    sys.path.insert(0, str(EXAMPLES))
    yield importlib.import_module("edge_of_stability")
    sys.path.remove(str(EXAMPLES))


@pytest.fixture
def ran(example, tmp_path):
    """Sharpness, and smoothness of each step, of one training."""

    def run(*training, **more):
        training = example.Training(*training, **more)
        example.record(training, tmp_path / "run")
        return training.limit, *example.measured(training, tmp_path / "run", tmp_path / "tables", points=25)

    return run


@pytest.mark.parametrize(("lr", "momentum", "steps"), [(0.6, 0.0, 350), (0.7, 0.5, 250)])
def test_sharpness_rises_to_its_limit_and_hovers_there(ran, lr, momentum, steps):
    limit, sharpness, smooth = ran("few_squares", lr, steps, momentum=momentum)
    assert sharpness["converged"].all()
    late = sharpness.filter(pl.col("step") >= steps * 0.6)["eigenvalue"]
    assert late.mean() == pytest.approx(limit, rel=0.12)
    assert late.max() < 1.3 * limit
    assert late.min() > 0.8 * limit
    assert sharpness["eigenvalue"][:3].max() < 0.9 * limit, "it began below"
    assert smooth["value"].max() < 1.1 * sharpness["eigenvalue"].max(), (
        "a step sees no more than the sharpest direction"
    )


def test_with_cross_entropy_it_does_not_come_near(ran):
    limit, sharpness, _ = ran("few_entropy", 1.0, 150)
    assert sharpness["eigenvalue"].max() < limit / 2
    assert sharpness["eigenvalue"][-1] < 0.8 * sharpness["eigenvalue"].max()


def test_the_figure_has_a_panel_per_training_with_its_limit(example):
    table = pl.DataFrame(
        {"step": [0, 10], "eigenvalue": [1.0, 2.0], "value": [1.0, 1.0], "exponential_mean": [1.0, 1.0]}
    )
    figure = example.draw(dict.fromkeys(example.TRAININGS, (table, table)))
    limits = [axes.get_lines()[0].get_ydata()[0] for axes in figure.axes]
    assert limits == pytest.approx([6.667, 5, 3.333, 7.5, 7.6, 2], rel=1e-3)
