"""Groups of parameters with settings of their own: what is true of some of them is said."""

import polars as pl
import pytest
import torch

from analysis.geometry import geometry
from analysis.measure import measure
from analysis.proofs import proofs
from analysis.proving.prove import evaluate
from analysis.thresholds import sgd_limit
from tests.walks import METRICS
from tracer import Tracer
from tracer.store import Trace


def tables(path, weight, bias):
    torch.manual_seed(0)
    model, x, y = torch.nn.Linear(5, 1).double(), torch.randn(64, 5).double(), torch.randn(64, 1).double()
    groups = [{"params": [model.weight], **weight}, {"params": [model.bias], **bias}]
    optimizer = torch.optim.SGD(groups, lr=0.01)
    with Tracer(path, model, optimizer, probes=["look_back"]) as tracer:
        for _ in range(40):
            rows = torch.randint(0, 64, (8,))
            optimizer.zero_grad()
            tracer.loss(lambda rows=rows: (model(x[rows]) - y[rows]).square().mean()).backward()
            optimizer.step()
    return geometry(Trace(path))


@pytest.mark.parametrize(
    ("weight", "bias", "says"),
    [
        ({"weight_decay": 0.1}, {"weight_decay": 0.1}, {"Weight decay"}),
        ({"weight_decay": 0.1}, {"weight_decay": 0.0}, {"Weight decay"}),
        ({"momentum": 0.9}, {"momentum": 0.8}, {"With momentum"}),
        ({"momentum": 0.0}, {"momentum": 0.8}, {"With momentum"}),
        ({"lr": 0.01}, {"lr": 0.02}, set()),
        ({}, {}, set()),
    ],
)
def test_a_caution_is_given_where_it_applies_to_one_group(tmp_path, weight, bias, says):
    found = measure(METRICS["smoothness"], tables(tmp_path / "run", weight, bias)).verdicts
    (row,) = found.filter(claim="below 2/lr", pairing="previous").rows(named=True)
    assert {words for words in ("Weight decay", "With momentum") if words in row["caveat"]} == says


def test_a_proof_that_must_not_maximise_sees_the_group_that_does(tmp_path):
    found = tables(tmp_path / "run", {"maximize": True}, {"maximize": False})
    assert evaluate(proofs()["sgd_average"], found).finding.status == "NOT APPLICABLE"


def test_nesterov_in_one_group_is_neither_yes_nor_no(tmp_path):
    half = tables(tmp_path / "run", {"momentum": 0.9, "nesterov": True}, {"momentum": 0.9, "nesterov": False})
    assert half.facts.optimizer_flags == ("nesterov in some groups",)
    (row,) = measure(METRICS["cos_step"], half).verdicts.filter(pairing="previous").rows(named=True)
    assert row["biases"].startswith("momentum not known here")
    assert "only some parameter groups have it" in row["biases"]


def test_dampening_without_momentum_is_none():
    settings = pl.DataFrame({"momentum": [0.0, 0.5], "dampening": [0.5, 0.5], "nesterov": [0.0, 0.0]})
    assert settings.select(sgd_limit).to_series().to_list() == [2.0, 6.0]
