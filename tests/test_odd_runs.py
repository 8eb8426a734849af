"""Runs that lack something or went wrong, recorded and read back: nothing raises, nothing passes, all of it is said."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from analysis.columns import COLUMNS
from analysis.geometry import geometry
from analysis.measure import measure_all
from analysis.metric import claim_columns
from analysis.pages.report import report
from analysis.proofs import proofs
from analysis.proving.prove import evaluate_all
from analysis.registry import metrics
from analysis.soundness.checks import trace_checks
from tracer import Tracer
from tracer.store import Trace

METRICS = metrics()
PROBES = ("look_back", "look_ahead", "half_batches")
KINDS = {
    "diverging": {"lr": 3.0},
    "three steps": {"steps": 3},
    "no step": {"steps": 0},
    "without probe": {"probes": ()},
    "without loss": {"probes": (), "loss": False},
    "one parameter": {"size": 1},
    "one parameter, three steps": {"size": 1, "steps": 3},
}


def train(path, size=4, steps=130, lr=0.1, probes=PROBES, loss=True):
    """SGD on ‖x‖⁴/4 + ‖x − z‖²/2 with minibatches z, which explodes where the rate is large."""
    torch.manual_seed(0)
    w = torch.nn.Parameter(torch.linspace(1, 2, size, dtype=torch.float64))
    model = torch.nn.ParameterList([w])
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    with Tracer(path, model, optimizer, probes=list(probes)) as tracer:
        for t in range(steps):
            halves = torch.randn(2, size, dtype=torch.float64) / 10

            def f(z):
                return w.square().sum() ** 2 / 4 + (w - z).square().sum() / 2

            optimizer.zero_grad()
            if loss:
                both = tuple(partial(f, z) for z in halves) if "half_batches" in probes else None
                tracer.loss(partial(f, halves.mean(0)), halves=both, batch=t, epoch=t // 20).backward()
            else:
                f(halves.mean(0)).backward()
            optimizer.step()
    return geometry(Trace(path))


@pytest.fixture(scope="module", params=KINDS)
def ran(request, tmp_path_factory):
    with np.errstate(all="ignore"):
        tables = train(tmp_path_factory.mktemp("odd") / "run", **KINDS[request.param])
        found = measure_all(METRICS.values(), tables)
        outcomes = evaluate_all(proofs().values(), tables)
    verdicts = pl.concat([each.verdicts for each in found.values()])
    return SimpleNamespace(kind=request.param, tables=tables, found=found, verdicts=verdicts, outcomes=outcomes)


def held(ran):
    return ran.verdicts.filter(pl.col("status") == "HOLDS").select("metric", "claim", "pairing").rows()


def test_no_row_lacks_a_number_or_a_reason(ran):
    rows = ran.verdicts
    for name in ("pairs", "undefined", "missing"):
        assert rows[name].null_count() == 0
    assert (rows["reason"].str.len_chars() > 0).all()
    judged = rows.filter(pl.col("status").is_in(["HOLDS", "FAILS"]))
    assert judged.filter(pl.col("estimate").is_null() | pl.col("tolerance").is_null()).is_empty()
    decided_by_interval = judged.filter(pl.col("rule") != "P (every step)")
    assert decided_by_interval.filter(pl.col("effective_samples").is_null()).is_empty()


def test_what_cannot_be_judged_does_not_pass(ran):
    if ran.kind in ("diverging", "three steps", "no step", "one parameter, three steps"):
        assert held(ran) == []
        assert "HOLDS" not in {outcome.finding.status for outcome in ran.outcomes.values()}
        return
    missing = {
        "without probe": {n for n, c in COLUMNS.items() if "probe was recorded" in c.absent or "halves" in c.absent},
        "without loss": {"loss_x", "loss_y", "loss", "loss_previous", "loss_next", "loss_change_d"},
    }.get(ran.kind, set())
    for name, claim, pairing in held(ran):
        metric = METRICS[name]
        (its,) = (each for each in metric.claims if each.name == claim)
        if pairing != "next":  # of which x_t is y, and what is known there needs no probe
            assert not missing & set(claim_columns(metric, its)), (name, claim, pairing)


def test_what_is_missing_is_named(ran):
    if ran.kind not in ("without probe", "without loss"):
        return
    rows = ran.verdicts.filter(metric="convexity_gap", pairing="previous", claim="convex on average")
    says = {"without probe": 'probes=["look_back"]', "without loss": "hand the loss to the tracer"}[ran.kind]
    assert rows["status"].to_list() == ["NOT APPLICABLE"]
    assert says in rows["reason"].item()


def test_a_run_that_diverges_says_where(ran):
    if ran.kind == "diverging":
        row = ran.verdicts.filter(metric="loss_change", pairing="previous", claim="the loss falls").row(0, named=True)
        assert "the run diverged" in row["reason"]
        assert row["undefined"] > 0
        finite = next(check for check in trace_checks(ran.tables) if check.name == "finite")
        assert not finite.passed


def test_its_data_are_sound_and_its_report_can_be_written(ran):
    checks = trace_checks(ran.tables)
    assert [check.name for check in checks if not check.passed and check.severity == "error"] == []
    few = ("convexity_gap", "loss_change", "smoothness", "reference_slope", "convex_dominance")
    shown = {name: (METRICS[name], ran.found[name].table, ran.found[name].verdicts) for name in few}
    lines = {
        name: (proofs()[name], vars(outcome.finding), outcome.table)
        for name, outcome in ran.outcomes.items()
        if len(outcome.table)
    }
    page = report(ran.tables.facts, shown, checks, steps=ran.tables.steps.collect(), proofs=lines)
    assert "</html>" in page
