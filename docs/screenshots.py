"""Makes the pictures in docs/screenshots: ``python docs/screenshots.py``, with the test extra and chromium.

Records nine runs of one problem in the home that ``$LEMMATA_HOME`` names, computes them, and looks at their pages in a
real browser. What is there already is not done again.
"""

import io
import sys
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.rerun import rerun  # noqa: E402
from tests.browser import browsing, served  # noqa: E402
from tracer.store import home  # noqa: E402
from tracer.workloads import train  # noqa: E402

INTO = ROOT / "docs" / "screenshots"
RATES = {"sgd": (0.02, 0.1, 0.5), "sgdm": (0.01, 0.05, 0.2), "adamw": (0.001, 0.003, 0.01)}
SHOWN = "mlp-sgdm-0.05"
COLOURS = 256  # a page is letters and lines: a palette takes a third of the room
MOST = 200_000  # bytes


def runs() -> None:
    """Nine runs, recorded and computed."""
    home.runs_root().mkdir(parents=True, exist_ok=True)
    for optimizer, rates in RATES.items():
        for rate in rates:
            path = home.runs_root() / f"mlp-{optimizer}-{rate:g}"
            if not path.is_dir():
                train("mlp", path, optimizer=optimizer, lr=rate, steps=150)
    rerun([path.name for path in sorted(home.runs_root().iterdir())])


def take(page: Any, name: str) -> None:
    """What the page shows now, as a small PNG."""
    page.wait_for_timeout(3000)  # graphs and tables settle
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture = picture.quantize(COLOURS, dither=Image.Dither.NONE)
    INTO.mkdir(exist_ok=True)
    path = INTO / f"{name}.png"
    picture.save(path, optimize=True)
    assert path.stat().st_size <= MOST, f"{path}: {path.stat().st_size} bytes"


def main() -> None:
    """All pictures, one after the other."""
    runs()
    with served() as address, browsing(Path("failed.png"), 1360, 900) as page:
        page.goto(f"{address}/asset-groups")
        page.get_by_text("recorded").first.wait_for()
        take(page, "lineage")
        page.goto(f"{address}/assets/convexity_gap")
        page.get_by_text("Columns", exact=True).first.wait_for()
        take(page, "metric")
        page.goto(f"{address}/assets/convexity_gap?view=partitions&partition={SHOWN}")
        page.get_by_text("[Show Markdown]").first.click()
        page.locator("img[src^='data:image/svg+xml;base64']").first.wait_for()
        take(page, "plot")
        page.goto(f"{address}/assets/convexity_gap?view=checks")
        page.get_by_text("convex_at_every_step").first.wait_for()
        take(page, "checks")
        for name, path in (("comparison", "_comparison/comparison.html"), ("report", f"{SHOWN}/report.html")):
            page.goto((home.tables_root() / path).as_uri())
            take(page, name)
        page.goto((home.tables_root() / "_comparison" / "comparison.html").as_uri() + "#optimizers")
        take(page, "optimizers")


if __name__ == "__main__":
    main()
