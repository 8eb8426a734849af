"""How much memory recording and verifying take, whatever the length of the run; each in a process of its own.

``python -m tests.memory record RUN SIDE STEPS CHUNK_BYTES`` and ``python -m tests.memory verify RUN`` print bytes.
"""

import json
import subprocess
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")
ROOT = Path(__file__).parents[1]
VERIFIED = 1 << 30  # bytes that verifying may take, of a trace of any size


def peak() -> int:
    """The most bytes this process has had resident, pages of mapped files among them; Linux only."""
    [line] = [line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) << 10


def record(path: str, side: int, steps: int, chunk_bytes: int) -> dict[str, int]:
    """Record x and g of ``side``² parameters; the peak after two chunks are sealed, and after all of them."""
    import torch

    from tracer import Tracer

    model = torch.nn.Linear(side, side, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    early = 3 * max(1, chunk_bytes // (8 * side * side))
    with Tracer(path, model, optimizer, chunk_bytes=chunk_bytes) as tracer:
        for step in range(steps):
            optimizer.zero_grad()
            tracer.loss(lambda: model(torch.ones(side)).square().mean()).backward()
            optimizer.step()
            if step == early:
                tracer.flush()
                before = peak()
    return {"early": before, "late": peak()}


def verify(path: str) -> dict[str, int]:
    """The peak of verifying every row of a run, and whether it was sound."""
    from tracer.store import verify

    return {"damaged": len(verify(path)), "peak": peak()}


def measured(*arguments: object) -> dict[str, int]:
    """What one of the two prints, run by itself."""
    command = [sys.executable, "-m", "tests.memory", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    found: dict[str, int] = json.loads(done.stdout)
    return found


def bounded(path: Path, side: int, steps: int, chunk_bytes: int) -> dict[str, int]:
    """Record, verify, and raise AssertionError if either took more than it may."""
    recorded = measured("record", path, side, steps, chunk_bytes)
    grown = recorded["late"] - recorded["early"]
    assert grown <= 2 * chunk_bytes, f"recording {steps} steps took {grown} bytes more than recording three chunks"
    verified = measured("verify", path)
    assert not verified["damaged"]
    assert verified["peak"] <= VERIFIED, f"verifying took {verified['peak']} bytes"
    return {"bytes": sum(p.stat().st_size for p in path.iterdir()), "grown": grown, "verified": verified["peak"]}


if __name__ == "__main__":
    _, action, path, *numbers = sys.argv
    print(json.dumps(record(path, *map(int, numbers)) if action == "record" else verify(path)))
