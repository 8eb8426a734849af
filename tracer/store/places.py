"""Where archives are: files of this machine, or anything fsspec has a URL for."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from tracer.errors import UsageError
from tracer.store.files import ASIDE, sync, sync_directory

Place = str | os.PathLike[str]
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"})
"""Protocols whose uploads appear whole or not at all, which a file must on which others rely."""


def is_url(place: Place) -> bool:
    """Whether ``place`` is a URL such as ``s3://bucket/run.lemmata``; all else is a path."""
    return isinstance(place, str) and "://" in place


def url_path(url: str, setting: str) -> Any:
    """A directory on an object store, with the methods of a ``Path``; nothing it says comes from a memory of before.

    Args:
        setting: what named it, for messages.

    Raises:
        UsageError: it is no object store, or what opens it is not installed.
    """
    protocol = url.partition("://")[0]
    if protocol not in OBJECT_STORES:
        stores = ", ".join(sorted(OBJECT_STORES))
        raise UsageError(
            f"{setting}={url}: expected a path, or a URL of an object store ({stores}), where a file appears whole or "
            f"not at all; found {protocol}. Mount it and give the path."
        )
    try:
        path = import_module("upath").UPath(url, use_listings_cache=False)
        path.fs  # noqa: B018  imports what the protocol needs
    except ImportError as error:
        raise UsageError(
            f"{setting}={url}: expected the extra s3 (or fsspec's package for {protocol}); found: {error}. "
            "Install it: pip install 'lemmata[s3]'."
        ) from None
    return path


@contextmanager
def open_new(place: Place) -> Iterator[BinaryIO]:
    """A file to write that is there, whole, after the block, and absent if the block raised.

    Raises:
        UsageError: something is there already, or fsspec cannot open the URL.
    """
    if is_url(place):
        with _open_new_url(os.fspath(place)) as file:
            yield file
        return
    path = Path(place)
    if path.exists():
        raise UsageError(f"{path}: is there already; archives are never overwritten. Name another file or remove it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ASIDE)
    try:
        with open(aside, "wb") as file:
            yield file
            file.flush()
            sync(file.fileno())
        if path.exists():
            raise UsageError(f"{path}: appeared while its archive was written; nothing was overwritten.")
        os.rename(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    sync_directory(path.parent)


@contextmanager
def open_old(place: Place) -> Iterator[tuple[Any, int | None]]:
    """A file to read from its start, and its size where that is known.

    Raises:
        UsageError: nothing is there, or fsspec cannot open the URL.
    """
    try:
        if is_url(place):
            filesystem, path = _filesystem(os.fspath(place))
            file = filesystem.open(path, "rb")
            size = getattr(file, "size", None)
        else:
            file = open(place, "rb")  # noqa: SIM115  closed below
            size = os.fstat(file.fileno()).st_size if os.path.isfile(place) else None  # a pipe has none
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UsageError(f"{os.fspath(place)}: no such archive ({error}).") from None
    with file:
        yield file, size if isinstance(size, int) else None


@contextmanager
def _open_new_url(url: str) -> Iterator[BinaryIO]:
    filesystem, path = _filesystem(url)
    if filesystem.exists(path):
        raise UsageError(f"{url}: is there already; archives are never overwritten. Name another or remove it.")
    try:
        with filesystem.open(path, "wb") as file:
            yield file
    except BaseException:  # what was uploaded has no end and passes for no archive; still, take it away
        with suppress(Exception):
            filesystem.rm(path)
        raise


def _filesystem(url: str) -> tuple[Any, str]:
    try:
        fsspec = import_module("fsspec")
    except ModuleNotFoundError:
        raise UsageError(f"{url}: a URL needs the package fsspec: pip install fsspec. A path needs nothing.") from None
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:  # of the protocol: fsspec's text names the package to install
        raise UsageError(f"{url}: fsspec cannot open it: {error}") from None
    return filesystem, str(path)
