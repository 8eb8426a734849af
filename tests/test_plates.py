"""The paper's figures: what is drawn, and what is said where something is missing."""

import numpy as np
import polars as pl
import pytest

from analysis.judging.verdict_table import VERDICT_SCHEMA
from analysis.measure import measure_all
from analysis.pages.drawing import CONTROL_LINES, subscripts
from analysis.pages.grouped import families, groups
from analysis.pages.measured import Measured
from analysis.pages.plates import NEEDS, PLATES
from analysis.pages.proof_plate import proof_bounds
from analysis.proofs import proofs
from analysis.proving.prove import evaluate_all
from analysis.registry import metrics
from tests.problems import descend, logistic
from tests.tables_by_hand import tables


def measured(given):
    names = {name for needed in NEEDS.values() for name in needed}
    found = measure_all([metrics()[name] for name in sorted(names)], given)
    drawn = {name: (each.table, each.verdicts) for name, each in found.items()}
    return Measured(given.facts.run_id, drawn, given.steps.collect())


@pytest.fixture(scope="module")
def data():
    run = descend(logistic(1), 0.3, 60)
    pairings = ("previous", "next", "unpaired")
    return measured(tables(run, pairings=pairings, references={"last": run.x[-1], "initial": run.x[0]}))


def labels(fig):
    return [label for axes in fig.axes for label in axes.get_legend_handles_labels()[1]]


def words(fig):
    texts = [text.get_text() for axes in fig.axes for text in axes.texts]
    return " ".join(" ".join([*texts, *(axes.get_title(loc="left") for axes in fig.axes)]).split())


def test_every_plate_can_be_drawn_from_a_run_that_has_nothing():
    for plate in PLATES.values():
        fig = plate(Measured("none", {}, pl.DataFrame(schema={"step": pl.Int64})))
        fig.draw_without_rendering()
        assert "was not measured" in words(fig) or "no pairs" in words(fig)


def test_the_gap_is_drawn_with_both_means(data):
    found = labels(PLATES["convexity_gap"](data))
    assert {"each step", "average so far", "exponential mean, 0.99"} <= set(found)


def test_unpaired_smoothness_stands_apart_and_is_called_noise(data):
    fig = PLATES["smoothness"](data)
    assert "2 / lr" in labels(fig)
    assert any("noise alone" in label for label in labels(fig))
    assert "UNPAIRED" in fig.axes[1].get_title(loc="left")


def test_the_three_sums_end_where_the_columns_do(data):
    right = PLATES["update_correlation"](data).axes[1]
    ends = {line.get_label(): line.get_ydata()[-1] for line in right.lines if not line.get_label().startswith("_")}
    rows = data.rows("loss_change", "previous")
    assert sorted(ends.values()) == pytest.approx(
        sorted(rows[f"cumulative{suffix}"][-1] for suffix in ("", "_update_correlation", "_descent_term"))
    )


def test_a_run_without_random_factors_says_so(data):
    assert "no random scale was recorded" in words(PLATES["random_scaling"](data))


def test_without_the_loss_at_a_reference_only_the_numerator_is_drawn(data):
    table, verdicts = data.found["convexity_ratio"]
    gap, of_gap = data.found["reference_gap"]
    blind = {
        "convexity_ratio": (table.with_columns(cumulative_ratio=pl.lit(None, pl.Float64)), verdicts),
        "reference_gap": (gap.with_columns(value=pl.lit(None, pl.Float64)), of_gap),
    }
    fig = PLATES["convexity_ratio"](Measured("r", {**data.found, **blind}, data.steps))
    assert "has to be replayed" in words(fig)
    assert fig.axes[2].lines


def test_a_bound_stands_beside_what_was_observed():
    given = tables(descend(logistic(1), 0.3, 60))
    lines = pl.concat([each.table for each in evaluate_all(proofs().values(), given).values()])
    fig = proof_bounds("r", lines)
    drawn = [tick.get_text() for tick in fig.axes[0].get_yticklabels()]
    assert "descent_lemma\nfirst-order decrease" in drawn
    assert not [name for name in drawn if name.startswith("adam_energy")]
    assert "no proof" in words(proof_bounds("r", None))


def test_the_title_of_the_proofs_meets_no_other_words():
    lines = pl.concat(
        [each.table for each in evaluate_all(proofs().values(), tables(descend(logistic(1), 0.3, 60))).values()]
    )
    fig = proof_bounds("r", lines)
    fig.draw_without_rendering()
    (title,) = fig.texts[:1]
    assert title.get_window_extent().y0 >= fig.axes[0]._left_title.get_window_extent().y1


def test_words_in_figures_have_their_indices_below_the_line():
    assert (
        subscripts("from x_{t−1} to x_t, on z_t; f(x_T, z_t), x − x_r") == "from xₜ₋₁ to xₜ, on zₜ; f(x_T, zₜ), x − xᵣ"
    )
    assert subscripts("tail_mean, scale_d, √2 / lr") == "tail_mean, scale_d, √2 / lr"


def test_negative_controls_have_colours_of_their_own(data):
    fig = PLATES["convexity_ratio"](data)
    colours = {line.get_label(): line.get_color() for line in fig.axes[2].lines}
    assert colours["initial"] in CONTROL_LINES
    assert colours["last"] not in CONTROL_LINES


def row(pairing, status, metric="aiming", claim="aims"):
    numbers = dict.fromkeys(VERDICT_SCHEMA)
    return {**numbers, "metric": metric, "claim": claim, "pairing": pairing, "status": status, "rule": "M (mean)",
            "reason": f"because of {pairing}"}  # fmt: skip


def test_reference_points_of_one_claim_are_one_group_whose_controls_do_not_count():
    rows = [row("reference:last", "HOLDS"), row("reference:ema", "HOLDS"), row("reference:initial", "FAILS")]
    (group,) = groups(rows)
    assert (group.status, group.label, len(group.rows)) == ("HOLDS", "HOLDS", 3)
    assert "answer otherwise" in group.agreement
    (mixed,) = groups([*rows, row("reference:best_loss", "FAILS")])
    assert (mixed.status, mixed.label) == ("FAILS", "FAILS at 1 of 3")
    assert "FAILS at best_loss; HOLDS at last, ema" in mixed.agreement
    (same,) = groups([row("reference:last", "FAILS"), row("reference:random", "FAILS")])
    assert "controls answer the same" in same.agreement


def test_families_leave_out_what_is_never_judged_and_put_failures_first():
    rows = [row("previous", "HOLDS"), row("next", "FAILS"), row("unpaired", "NOT APPLICABLE")]
    (family,) = families({"aiming": "B"}, rows)
    assert [group.status for group in family.groups] == ["FAILS", "HOLDS"]
    (own,) = families({}, rows[:1])
    assert own.title == "Your own"
    assert np.isclose(sum(family.counts.values()), 2)


@pytest.mark.parametrize("name", PLATES)
def test_all_words_of_a_plate_are_inside_the_figure(data, name):
    fig = PLATES[name](data)
    fig.draw_without_rendering()
    parts = [axes.get_tightbbox() for axes in fig.axes] + [text.get_window_extent() for text in fig.texts]
    for part in parts:
        assert fig.bbox.x0 <= part.x0 < part.x1 <= fig.bbox.x1
        assert fig.bbox.y0 <= part.y0 < part.y1 <= fig.bbox.y1
