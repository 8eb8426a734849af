"""A real browser on a real Dagster server, for the test and for the pictures of the docs."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


@contextmanager
def served() -> Iterator[str]:
    """``lemmata ui`` as a process of its own: its address. Afterwards its whole group is gone."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", "from pipeline.commands import main; main()", "ui", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert f"http://127.0.0.1:{port}" in process.stdout.readline()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)
    assert process.returncode == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "the server is still there"


@contextmanager
def browsing(picture_of_failure: Path, width: int = 1500, height: int = 1000) -> Iterator[Any]:
    """A page of a browser; what it showed when something failed is in ``picture_of_failure``."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS, timeout=PATIENCE * 1000)
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(PATIENCE * 1000)
        try:
            yield page
        except BaseException:
            page.screenshot(path=picture_of_failure)
            raise
        finally:
            browser.close()


def choose_run(page: Any, run_id: str) -> None:
    """In the dialog of a materialization: this partition and no other."""
    page.get_by_text("Select a partition or create one").click()
    page.locator("span").filter(has_text=re.compile(f"^{re.escape(run_id)}$")).click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Launch 1 run").click()
