"""Files of format 1 stay readable: a run that is never recorded again, and what it held when it was recorded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from analysis.geometry import geometry
from pipeline.archives import known
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


ANALYSED = """
import sys
from pipeline.materialize import materialize
asked = ("trace", "geometry", "replays", "convexity_gap", "smoothness", "proofs", "verdicts", "report")
(outcome,) = materialize(["closed-run"], asked)
assert outcome.succeeded, outcome.failures
assert "torch" not in sys.modules
print(*sorted(outcome.computed))
"""


def test_a_mounted_run_of_format_1_is_a_partition_and_is_analysed_without_torch(tmp_path):
    (tmp_path / "runs").symlink_to(V1, target_is_directory=True)  # as a mounted directory of archived runs
    environment = {**os.environ, "LEMMATA_HOME": str(tmp_path), "PYTHONPATH": str(V1.parents[2])}
    for name in ("LEMMATA_METRICS", "LEMMATA_ARCHIVES", "LEMMATA_TABLES", "DAGSTER_HOME"):
        environment.pop(name, None)
    command = [sys.executable, "-W", "ignore", "-c", ANALYSED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {"trace", "geometry", "convexity_gap", "verdicts", "report"} <= set(done.stdout.split())
    assert (tmp_path / "tables" / "closed-run" / "report.html").is_file()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEMMATA_HOME", str(tmp_path))
        assert known() == ["closed-run"]
