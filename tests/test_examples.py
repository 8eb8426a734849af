"""The examples run as a reader would run them."""

import os
import subprocess
import sys
from pathlib import Path

from tracer.store import Trace, runs

ROOT = Path(__file__).resolve().parents[1]
METRICS = ROOT / "examples" / "metrics"


def run_python(*arguments: str, home: Path, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"LEMMATA_HOME": str(home), "OMP_NUM_THREADS": "1"} | environment,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_quick_start_records_a_run_and_judges_it(tmp_path: Path) -> None:
    printed = run_python("examples/quickstart.py", home=tmp_path)
    (path,) = runs(tmp_path / "runs")
    trace = Trace(path)
    assert trace.status == "closed"
    assert trace.records().num_rows == 401  # 400 steps and the final point
    assert "convexity_gap: convex at every step" in printed
    assert float(printed.split("last loss ")[1].split()[0]) < 0.5


def test_the_example_metric_is_found_and_judged_beside_the_built_in_ones(tmp_path: Path) -> None:
    printed = run_python("examples/quickstart.py", home=tmp_path, LEMMATA_METRICS=str(METRICS))
    assert "gradient_cosine: at least 0, on average" in printed
    assert "convexity_gap: convex on average" in printed


def test_the_example_metric_takes_about_ten_lines() -> None:
    lines = (METRICS / "gradient_cosine.py").read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line.strip()]) <= 12
