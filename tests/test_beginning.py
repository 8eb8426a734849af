"""Traces that begin after their training did: the momentum that is there already is nobody's fault."""

from dataclasses import dataclass

import pytest
import torch

from analysis.geometry import geometry
from analysis.proofs import proofs
from analysis.proving.prove import evaluate
from analysis.soundness.checks import trace_checks
from tracer import Tracer
from tracer.store import Trace


@dataclass(frozen=True)
class Later:
    """From a step on."""

    first: int

    def records(self, step):
        return step >= self.first

    def description(self):
        return {"steps": "later", "first": self.first}


def tables(path, before=0, dtype=torch.float64, sgd=None, **how):
    """Of 40 steps that follow ``before`` others, of which nothing was recorded; with the momentum, which was."""
    torch.manual_seed(0)
    model = torch.nn.Linear(5, 1).to(dtype)
    x, y = torch.randn(64, 5, dtype=dtype), torch.randn(64, 1, dtype=dtype)
    optimizer = torch.optim.SGD(model.parameters(), **{"lr": 0.05, "momentum": 0.9} | (sgd or {}))

    def loss(rows):
        return (model(x[rows]) - y[rows]).square().mean()

    for _ in range(before):
        optimizer.zero_grad()
        loss(slice(None)).backward()
        optimizer.step()
    with Tracer(path, model, optimizer, probes=["look_back"], optimizer_buffers=("momentum_buffer",), **how) as tracer:
        for _ in range(40):
            rows = torch.randint(0, 64, (8,))
            optimizer.zero_grad()
            tracer.loss(lambda rows=rows: loss(rows)).backward()
            optimizer.step()
    return geometry(Trace(path))


LATE = {
    "a branch": {"before": 20, "branch_of": ("other", 20)},
    "attached late": {"before": 20},
    "a plan that begins later": {"plan": Later(5)},
}
SETTINGS = {
    "plain": {},
    "nesterov": {"nesterov": True},
    "maximised": {"maximize": True, "lr": 0.001},
    "decay": {"weight_decay": 0.1},
    "dampened": {"dampening": 0.3},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("late", ["from the start", *LATE])
def test_a_sound_trace_is_sound_wherever_it_begins(tmp_path, late, settings, dtype):
    found = tables(tmp_path / "run", dtype=dtype, sgd=SETTINGS[settings], **LATE.get(late, {}))
    assert [check.description for check in trace_checks(found) if not check.passed and check.severity == "error"] == []


def test_a_proof_that_begins_with_an_empty_momentum_needs_one(tmp_path):
    proof = proofs()["sgd_momentum"]
    for late, how in LATE.items():
        found = evaluate(proof, tables(tmp_path / late.replace(" ", "-"), **how)).finding
        assert found.status == "NOT APPLICABLE", late
        assert "begin with the first update" in found.reason
    found = evaluate(proof, tables(tmp_path / "start")).finding
    assert found.status == "INCONCLUSIVE", "it holds as far as it can be tested without losses at u"
