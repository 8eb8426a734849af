"""The benchmarks run; what they measure is for ``make bench`` to say."""

import json
import math
from pathlib import Path

import pytest
import torch

from tests.benchmarks import bench_cuda
from tests.benchmarks.__main__ import BENCHMARKS, NAMES, main


def test_every_benchmark_runs_and_gives_finite_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "benchmarks.md"
    session = main(["--quick", "--write", str(page)])
    assert len({figure.benchmark for figure in session.figures}) == len(BENCHMARKS)
    assert all(math.isfinite(v) for f in session.figures for v in (f.median, f.lower, f.upper))
    about, *rows = [json.loads(line) for line in page.with_suffix(".jsonl").read_text().splitlines()]
    assert about["machine"]["processor"]
    assert [row["median"] for row in rows] == [f.median for f in session.figures]
    assert "| spare core |" in page.read_text()
    assert page.read_text().strip() in capsys.readouterr().out


def test_the_table_for_a_cuda_device_is_ready(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = bench_cuda.main(tmp_path, torch.device("cpu"), quick=True)
    settings = {figure.setting for figure in session.figures}
    assert len(settings) == 2
    assert all(math.isfinite(figure.median) for figure in session.figures)
    assert all(setting in capsys.readouterr().out for setting in sorted(settings)[:1])
    sizes = [sum(p.numel() for p in model.parameters()) for model in (bench_cuda.resnet18(), bench_cuda.gpt2("meta"))]
    assert sizes == [11_173_962, 124_356_864]


def test_a_benchmark_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["capture", "speed"])
    said = capsys.readouterr().err
    assert all(name in said for name in ("'speed'", *NAMES))
