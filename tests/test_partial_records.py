"""Traces that hold some of their training: what is not there is neither zero nor counted as if it were."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from analysis.geometry import geometry
from analysis.measure import measure
from analysis.proofs import proofs
from analysis.proving.prove import evaluate
from analysis.rates import of_schedule, with_rates
from tests.walks import METRICS
from tracer import Tracer
from tracer.plan import Bursts, EveryNth
from tracer.store import Trace

EPOCH = 50


def record(path, steps, *, optimizer=None, told=lambda step: True, clip=None, **how):
    """Of a linear regression; its loss is told to the tracer at some steps."""
    torch.manual_seed(0)
    model, x, y = torch.nn.Linear(5, 1).double(), torch.randn(256, 5).double(), torch.randn(256, 1).double()
    optimizer = (optimizer or (lambda p: torch.optim.SGD(p, lr=0.02)))(model.parameters())
    with Tracer(path, model, optimizer, **how) as tracer:
        for step in range(steps):
            rows = torch.randint(0, 256, (16,))

            def loss(rows=rows):
                return (model(x[rows]) - y[rows]).square().mean()

            def half(rows):
                return lambda: loss(rows)

            both = {"halves": (half(rows[:8]), half(rows[8:]))} if "half_batches" in how.get("probes", ()) else {}
            optimizer.zero_grad()
            (tracer.loss(loss, epoch=step // EPOCH, **both) if told(step) else loss()).backward()
            if clip is not None:
                tracer.clip_grad_norm_(clip)
            optimizer.step()
    return geometry(Trace(path))


@pytest.mark.parametrize("odd", [0, 1])
def test_a_proof_that_sums_losses_needs_them_all(tmp_path, odd):
    """The last step has its loss in one case, and not in the other."""
    found = evaluate(proofs()["sgd_last_iterate"], record(tmp_path / "run", 100, told=lambda step: step % 2 == odd))
    status = dict(zip(found.table["line"], found.table["status"], strict=True))
    assert status["from averages of tails to the last"] == "INCONCLUSIVE"
    assert status["convexity towards earlier iterates"] == "INCONCLUSIVE"
    whole = evaluate(proofs()["sgd_last_iterate"], record(tmp_path / "whole", 100))
    status = dict(zip(whole.table["line"], whole.table["status"], strict=True))
    assert status["from averages of tails to the last"] == "HOLDS"


@pytest.mark.parametrize("plan", [None, EveryNth(5), Bursts(10, EPOCH)])
def test_the_bias_of_reshuffling_counts_minibatches_of_an_epoch_not_records(tmp_path, plan):
    halves = {} if plan is None else {"plan": plan}
    tables = record(tmp_path / "run", 8 * EPOCH, probes=["look_back", "half_batches"], **halves)
    rows = measure(METRICS["update_correlation"], tables).verdicts.filter(pairing="previous")
    (amount,) = {float(text.split()[1]) for text in rows["biases"] if text.startswith("R7")}
    path = tables.path.filter(pl.col("block").cast(pl.String) == "model").collect()
    noise = ((path["ga_ga"] + path["gb_gb"] - 2 * path["ga_gb"]) / 4).mean()
    expected = 0.02 * noise / (EPOCH - 1)
    assert amount == pytest.approx(expected, rel=0.25)  # printed with two digits, of pairs alone


def test_the_bound_on_the_distance_is_judged_up_to_the_first_gap(tmp_path):
    (row,) = (
        measure(METRICS["d_bound"], record(tmp_path / "run", 300, plan=Bursts(40, 100)))
        .verdicts.filter(pairing="reference:initial")
        .rows(named=True)
    )
    assert (row["pairs"], row["missing"]) == (40, 80)


def test_the_rates_of_steps_that_were_not_recorded_count():
    rate = 0.1 / np.sqrt(1 + np.arange(400) // 5)
    steps = pl.DataFrame({"step": np.arange(400), "lr": rate, "loss": 1 / (1.0 + np.arange(400))})
    columns = ["rate_distance", "rate_noise"]
    whole = with_rates(steps.lazy()).collect()
    some = with_rates(steps.gather_every(5).lazy()).collect()
    assert some.select(columns).equals(whole.gather_every(5).select(columns))
    assert np.array_equal(whole["rate_distance"].to_numpy(), of_schedule(rate)[0])


def test_step_numbers_that_nobody_reaches_cost_no_memory():
    steps = pl.DataFrame({"step": [0, 1 << 60], "lr": [0.1, 0.1], "loss": [1.0, 0.5]})
    assert with_rates(steps.lazy()).collect()["rate_distance"].null_count() == 2


def test_the_observed_side_of_adams_bound_is_weighted_as_the_line_says(tmp_path):
    tables = record(tmp_path / "run", 60, optimizer=lambda p: torch.optim.Adam(p, lr=0.05), clip=0.5)
    geometry_ = tables.geometry.with_columns(  # as replayed losses at the reference would be
        loss_y=pl.when(pl.col("pairing").cast(pl.String) == "reference:last").then(0.0).otherwise("loss_y")
    )
    found = evaluate(proofs()["adam_energy"], replace(tables, geometry=geometry_))
    (left,) = found.table.filter(line="average loss above F(u)")["left"]
    losses = tables.steps.collect()["loss"].to_numpy()[:59]  # the length of the last step is not known in its metric
    assert left == pytest.approx(losses.mean(), rel=1e-12)
