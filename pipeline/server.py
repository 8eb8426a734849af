"""The Dagster UI as one process group: started on this machine only, stopped whole."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

import dagster_webserver as _needed  # noqa: F401  # so that a missing package is named before anything starts

import pipeline
from pipeline.archives import known
from pipeline.instance import opened, register
from tracer.errors import LemmataError
from tracer.store import home

HOST = "127.0.0.1"
PATIENCE = 30.0  # seconds between asking the group to end and ending it; a second Ctrl-C ends it at once
STOP = (signal.SIGINT, signal.SIGTERM)


def serve(port: int, when_up: Callable[[str], object] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM, or until the server ends by itself; returns an exit code.

    Raises:
        LemmataError: the port is taken.
    """
    _check_free(port)
    with opened() as instance:
        register(instance, known())
        directory = instance.root_directory
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)

    before = {number: signal.signal(number, stop) for number in STOP}
    server = _start(port, Path(directory))
    try:
        _wait(server, f"http://{HOST}:{port}", stopped, when_up)
    finally:
        _end(server, stopped)
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0 if stopped else 1


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise LemmataError(
                f"port {port} of {HOST}: {os.strerror(error.errno or 0)}. Choose another: lemmata ui --port {port + 1}"
            ) from None


def _start(port: int, directory: Path) -> "subprocess.Popen[bytes]":
    code = Path(pipeline.__file__).parents[1]
    arguments = ["--host", HOST, "--port", str(port), "--module-name", "pipeline.definitions"]
    arguments += ["--working-directory", str(code), "--log-level", "warning", "--code-server-log-level", "warning"]
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "dagster", "dev", *arguments],
        # started in its own directory: `python -m` would find a directory named "pipeline" in yours
        cwd=directory,
        env={**os.environ, "DAGSTER_HOME": str(directory), **_roots()},
        start_new_session=True,
        preexec_fn=_listen,  # a shell's `&` has us ignore Ctrl-C, and children inherit that
    )


def _roots() -> dict[str, str]:
    """The configured roots, none of them relative to this directory."""
    archives = home.archives_root()
    roots = {"LEMMATA_HOME": home.home(), "LEMMATA_TABLES": home.tables_root(), "LEMMATA_ARCHIVES": archives or ""}
    return {name: str(root) for name, root in roots.items()}


def _listen() -> None:
    for number in STOP:
        signal.signal(number, signal.SIG_DFL)


def _wait(
    server: "subprocess.Popen[bytes]", address: str, stopped: list[int], when_up: Callable[[str], object] | None
) -> None:
    up = False
    while server.poll() is None and not stopped:
        if not up and _answers(address):
            up = True
            print(f"Dagster UI: {address}  (Ctrl-C stops it)", flush=True)
            if when_up is not None:
                when_up(address)
        time.sleep(0.2)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/server_info", timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _end(server: "subprocess.Popen[bytes]", stopped: list[int]) -> None:
    """Ask once, as Ctrl-C in a terminal would; then end what is left of the group."""
    _signal(server, signal.SIGINT)
    deadline = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < deadline and len(stopped) < 2:
        time.sleep(0.05)
    _signal(server, signal.SIGKILL)
    server.wait()


def _signal(server: "subprocess.Popen[bytes]", number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(server.pid, number)  # it leads its session, so its id is the group's
