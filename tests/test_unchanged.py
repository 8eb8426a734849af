"""What was read of a file is kept only while the file is the same."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.unchanged import SETTLED, kept


def _counting() -> tuple[list[Path], Callable[[Path], str]]:
    calls: list[Path] = []

    @kept
    def read(path: Path) -> str:
        calls.append(path)
        return path.read_text() if path.is_file() else ",".join(sorted(os.listdir(path)))

    return calls, read


def test_a_file_is_read_once_and_again_when_it_was_replaced(tmp_path: Path) -> None:
    calls, read = _counting()
    file, aside = tmp_path / "a", tmp_path / "b"
    file.write_text("one")
    assert [read(file), read(file)] == ["one", "one"]
    assert len(calls) == 1
    aside.write_text("two")  # as long as the first
    os.replace(aside, file)
    assert read(file) == "two"


def test_a_run_that_is_being_written_is_read_each_time(tmp_path: Path) -> None:
    calls, read = _counting()
    (tmp_path / "chunk").write_text("x")
    soon = time.time() + 3600  # however long this process is held up
    os.utime(tmp_path / "chunk", (soon, soon))
    read(tmp_path), read(tmp_path)
    assert len(calls) == 2
    long_ago = time.time() - 2 * SETTLED
    os.utime(tmp_path / "chunk", (long_ago, long_ago))
    read(tmp_path), read(tmp_path)
    assert len(calls) == 3
    (tmp_path / "chunk").write_text("y")
    os.utime(tmp_path / "chunk", (long_ago + 0.5, long_ago + 0.5))
    read(tmp_path)
    assert len(calls) == 4


def test_what_is_not_there_is_not_kept(tmp_path: Path) -> None:
    calls, read = _counting()
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none" / "a")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a").write_text("now")
    assert read(tmp_path / "none" / "a") == "now"
    assert len(calls) == 2
