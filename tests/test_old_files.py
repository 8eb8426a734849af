"""Files of format 1 stay readable: a run that is never recorded again, and what it held when it was recorded."""

import json
from pathlib import Path

import numpy as np
import pytest

from analysis.geometry import geometry
from tracer.store import Trace, verify

V1 = Path(__file__).parent / "data" / "v1"


def test_a_run_of_format_1_reads_as_on_its_first_day():
    expected = json.loads((V1 / "expected.json").read_text())
    trace = Trace(V1 / "closed-run")
    assert verify(trace.path) == []
    assert trace.digest == expected["digest"]
    assert trace.steps.tolist() == expected["steps"]
    assert trace.records()["loss"].to_pylist() == expected["loss"]
    assert trace.manifest.config == {"why": "kept for good"}
    points = np.concatenate([chunk.x for chunk in trace.chunks()]).astype(np.float64)
    assert points.sum(axis=1).tolist() == pytest.approx(expected["x_sum"], rel=1e-14)
    model = geometry(trace).geometry.filter(block="model", pairing="previous").collect()
    assert model["d_d"].to_list() == pytest.approx(expected["d_d"], rel=1e-12)
    assert model["dg_dg"].to_list() == pytest.approx(expected["dg_dg"], rel=1e-12)
