"""A user opens the Dagster UI, computes a run with the mouse, looks at what came out, and adds a metric."""

import shutil
import time
from pathlib import Path

import pytest

from pipeline.materialize import materialize
from tests.browser import CHROMIUM, PATIENCE, browsing, choose_run, served

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "metrics" / "gradient_cosine.py"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser: {CHROMIUM} is not installed"),
]


def test_a_run_is_computed_by_clicking_and_again_with_a_metric_that_was_added(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from playwright.sync_api import expect

    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setenv("LEMMATA_METRICS", str(own))
    materialize(["sgdm", "adamw"], ["trace"])  # so that the sensor sees nothing new and the click is what computes
    with served() as address, browsing(tmp_path / "page.png") as page:
        page.goto(f"{address}/asset-groups")
        for group in ("recorded", "geometry", "convexity", "proofs", "verdicts", "report", "comparison"):
            expect(page.get_by_text(group, exact=True).first).to_be_visible()

        page.goto(f"{address}/asset-groups~%2Bkey%3A%22convexity_gap%22/")  # it, and what it needs
        page.get_by_role("button", name="Materialize all").click()
        choose_run(page, "sgdm")
        wait_for(home / "tables" / "sgdm" / "verdicts" / "convexity_gap.parquet")

        page.goto(f"{address}/assets/convexity_gap?view=partitions&partition=sgdm")
        page.get_by_text("[Show Markdown]").first.click()
        image = page.locator("img[src^='data:image/svg+xml;base64']").first
        expect(image).to_be_visible()
        assert image.evaluate("picture => picture.naturalWidth") > 300

        page.goto(f"{address}/assets/convexity_gap?view=checks")
        expect(page.get_by_text("convex_at_every_step").first).to_be_visible()
        expect(page.get_by_text("HOLDS: ").first).to_be_visible()
        expect(page.get_by_text("Passed", exact=True).first).to_be_visible()

        shutil.copy(EXAMPLE, own)
        page.goto(f"{address}/asset-groups")
        page.get_by_role("button", name="Reload definitions").click()
        expect(page.get_by_text("your_own").first).to_be_visible()
        page.goto(f"{address}/assets/gradient_cosine")
        expect(page.get_by_text("your_own").first).to_be_visible()
        page.get_by_role("button", name="Materialize").first.click()
        choose_run(page, "sgdm")
        wait_for(home / "tables" / "sgdm" / "verdicts" / "gradient_cosine.parquet")
        page.goto(f"{address}/assets/gradient_cosine?view=checks")
        expect(page.get_by_text("at_least_0_on_average").first).to_be_visible()
        expect(page.get_by_text("pairs 59").first).to_be_visible()
    assert not (home / "tables" / "adamw").exists()
    assert not (home / "tables" / "sgdm" / "verdicts" / "smoothness.parquet").exists(), "more than was clicked"


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 3 * PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.2)
