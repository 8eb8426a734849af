"""A user opens the Dagster UI, computes a run with the mouse and looks at what came out."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.materialize import materialize

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 120  # seconds; a loaded machine takes half a minute to start Dagster

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser: {CHROMIUM} is not installed"),
]


@pytest.fixture
def server(home: Path) -> Iterator[tuple[str, int]]:
    """``lemmata ui`` as a process of its own: its address and process id. Afterwards its whole group is gone."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", "from pipeline.commands import main; main()", "ui", "--port", str(port)]
    materialize(["sgdm", "adamw"], ["trace"])  # so that the sensor sees nothing new and the click is what computes
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert f"http://127.0.0.1:{port}" in process.stdout.readline()
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)
    assert process.returncode == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "the server is still there"


def test_a_run_is_computed_by_clicking_and_shows_checks_and_plot(
    server: tuple[str, int], home: Path, tmp_path: Path
) -> None:
    from playwright.sync_api import expect, sync_playwright

    address, _ = server
    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        page.set_default_timeout(PATIENCE * 1000)
        try:
            page.goto(f"{address}/asset-groups")
            expect(page.get_by_text("convexity").first).to_be_visible()
            page.get_by_role("button", name="Materialize all").click()
            page.get_by_text("Select a partition or create one").click()
            page.locator("span").filter(has_text=re.compile("^sgdm$")).click()
            page.keyboard.press("Escape")
            page.get_by_role("button", name="Launch 1 run").click()
            wait_for(home / "tables" / "sgdm" / "report.html")

            page.goto(f"{address}/assets/convexity_gap?view=partitions&partition=sgdm")
            page.get_by_text("[Show Markdown]").first.click()
            image = page.locator("img[src^='data:image/svg+xml;base64']").first
            expect(image).to_be_visible()
            assert image.evaluate("picture => picture.naturalWidth") > 300

            page.goto(f"{address}/assets/convexity_gap?view=checks")
            expect(page.get_by_text("convex_at_every_step").first).to_be_visible()
            expect(page.get_by_text("HOLDS: ").first).to_be_visible()
            expect(page.get_by_text("Passed", exact=True).first).to_be_visible()
        except BaseException:
            page.screenshot(path=tmp_path / "page.png")
            raise
        finally:
            browser.close()
    assert not (home / "tables" / "adamw").exists()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 5 * PATIENCE  # sixty assets, on a loaded machine
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.2)
