"""Files that are read and written whole, in a directory or on an object store.

What writes here writes a local file first; it becomes the target by one rename, or one upload, which the store shows
when it is complete. What reads from a store reads a local copy, kept by what the store says of the file's content.
"""

import os
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from tracer.store.home import cache_root, scratch_root

KEPT = 86_400.0  # seconds that a copy of an older content stays, for those who still read it


class Aside:
    """``with Aside(target) as aside``: write ``aside``; it becomes ``target`` unless something was raised."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.aside")

    def __enter__(self) -> Path:
        if is_local(self._target):
            self._target.parent.mkdir(parents=True, exist_ok=True)
        else:
            self._aside = _new_file(scratch_root(), self._target.suffix)
        return self._aside

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and is_local(self._target):
                os.replace(self._aside, self._target)
            elif kind is None:
                on_store: Any = self._target
                on_store.fs.put_file(str(self._aside), on_store.path)
        finally:
            self._aside.unlink(missing_ok=True)


def is_local(path: Path) -> bool:
    """Whether it is a path of this machine and not a ``UPath``."""
    return isinstance(path, Path)


def local(path: Path) -> Path:
    """The file itself, or a copy of one on a store: fetched when its content is another than before.

    Raises:
        FileNotFoundError: it is not there.
    """
    if is_local(path):
        return path
    on_store: Any = path
    version = on_store.fs.ukey(on_store.path)  # of the store's own mark of the content
    folder = cache_root() / "tables" / on_store.path.strip("/")
    copy: Path = folder / f"{version[:32]}{path.suffix}"
    if not copy.exists():
        aside = _new_file(folder, ".aside")
        try:
            on_store.fs.get_file(on_store.path, str(aside))
            os.replace(aside, copy)
        finally:
            aside.unlink(missing_ok=True)
        for other in folder.iterdir():
            with suppress(FileNotFoundError):  # another process removes the same
                if other != copy and other.stat().st_mtime < time.time() - KEPT:
                    other.unlink()
    return copy


def _new_file(folder: Path, suffix: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(suffix=suffix, dir=folder)
    os.close(descriptor)
    return Path(name)
