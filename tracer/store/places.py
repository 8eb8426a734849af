"""Where archives are: files of this machine, or anything fsspec has a URL for."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from tracer.errors import LemmataError, UsageError
from tracer.store.files import ASIDE, sync, sync_directory

Place = str | os.PathLike[str]
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"})
"""Protocols whose uploads appear whole or not at all, which a file must on which others rely."""
_S3 = frozenset({"s3", "s3a"})
_NOTHING = "nothing there"
_reached: set[tuple[str, str]] = set()  # roots that answered this process: setting and URL


def is_url(place: Place) -> bool:
    """Whether ``place`` is a URL such as ``s3://bucket/run.lemmata``; all else is a path."""
    return isinstance(place, str) and "://" in place


def url_path(url: str, setting: str) -> Any:
    """A directory on an object store, with the methods of a ``Path``; nothing it says comes from a memory of before.

    Args:
        setting: what named it, for messages.

    Raises:
        UsageError: it is no object store, what opens it is not installed, or nobody answers there.
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
        with reached(url):
            path.fs  # noqa: B018  imports what the protocol needs
    except ImportError as error:
        raise UsageError(
            f"{setting}={url}: expected the extra s3 (or fsspec's package for {protocol}); found: {error}. "
            "Install it: pip install 'lemmata[s3]'."
        ) from None
    except LemmataError as error:
        raise UsageError(f"{setting}={error}") from None
    if (setting, url) not in _reached:
        require_root(path, setting, absent=True)
        _reached.add((setting, url))
    return path


def require_root(root: Any, setting: str, absent: bool = False) -> None:
    """Raise :class:`UsageError` unless a root is a directory that can be listed.

    Args:
        root: a path, or what :func:`url_path` returns.
        setting: the variable that names it, for messages.
        absent: whether it may be missing, because the first who writes makes it.
    """
    given = os.environ.get(setting)
    named = f"{setting}={given}" if given else str(root)
    try:
        found = _found(root)
    except LemmataError as error:
        raise UsageError(f"{setting}={error}") from None
    except OSError as error:
        found = error.strerror or str(error)
    if found and not (absent and found == _NOTHING):
        do = f"Name another, or unset {setting}." if given else f"Remove it, or name another with {setting}."
        raise UsageError(f"{named}: expected a directory, found {found}. {do}")


def _found(root: Any) -> str:
    """What is there in the place of a directory that can be listed; empty where it is one."""
    if not is_url(str(root)):
        try:
            with os.scandir(root):
                return ""
        except FileNotFoundError:
            return _NOTHING
        except NotADirectoryError:
            return "a file"
    with reached(str(root)):
        try:
            return "" if root.fs.info(root.path)["type"] == "directory" else "a file"
        except FileNotFoundError:
            return _NOTHING if _has_bucket(root) else "no such bucket"


def _has_bucket(root: Any) -> bool:
    bucket = str(root.path).partition("/")[0]  # empty in memory, where there are none
    try:
        return not bucket or bool(root.fs.exists(bucket))
    except PermissionError:
        return True  # it is there, and only a part of it is ours


@contextmanager
def reached(url: str) -> Iterator[None]:
    """Around calls of a file system and nothing else: what it raises in its own words names the URL and what to do.

    Raises:
        LemmataError: the store cannot be reached, or lets nobody in.
        FileNotFoundError, IsADirectoryError: for the caller to tell.
        OSError: of a file that it names.
    """
    try:
        yield
    except (LemmataError, ImportError, FileNotFoundError, IsADirectoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        said = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        protocol = url.partition("://")[0]
        do = "Check the address, and what the package of fsspec for it reads its credentials from."
        if protocol in _S3:
            do = (
                "Check the credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile) and the endpoint "
                "(AWS_ENDPOINT_URL)."
            )
        raise LemmataError(f"{url}: {said}. {do}") from error


@contextmanager
def _there(url: str) -> Iterator[None]:
    """As :func:`reached`, where nothing is expected to be missing."""
    try:
        with reached(url):
            yield
    except FileNotFoundError as error:
        raise LemmataError(f"{url}: {error}. Name a place that is there, and stays.") from error


class _Remote:
    """A file of a file system that is not ours; see :func:`reached`."""

    def __init__(self, url: str, file: Any) -> None:
        self._url, self._file = url, file

    def read(self, size: int = -1) -> bytes:
        with _there(self._url):
            return self._file.read(size) or b""

    def write(self, data: Any) -> int:
        with _there(self._url):
            return int(self._file.write(data))

    def close(self) -> None:
        with _there(self._url):
            self._file.close()


@contextmanager
def open_new(place: Place) -> Iterator[BinaryIO]:
    """A file to write that is there, whole, after the block, and absent if the block raised.

    Raises:
        UsageError: something is there already, or fsspec cannot open the URL.
        LemmataError: the store cannot be reached, or lets nobody in.
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
        LemmataError: the store cannot be reached, or lets nobody in.
    """
    file: Any
    try:
        if is_url(place):
            url = os.fspath(place)
            filesystem, path = _filesystem(url)
            with reached(url):
                file = filesystem.open(path, "rb")
                size = getattr(file, "size", None)
            file = _Remote(url, file)
        else:
            file = open(place, "rb")  # noqa: SIM115  closed below
            size = os.fstat(file.fileno()).st_size if os.path.isfile(place) else None  # a pipe has none
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UsageError(f"{os.fspath(place)}: no such archive ({error}).") from None
    with closing(file):
        yield file, size if isinstance(size, int) else None


@contextmanager
def _open_new_url(url: str) -> Iterator[BinaryIO]:
    filesystem, path = _filesystem(url)
    with reached(url):
        if filesystem.exists(path):
            raise UsageError(f"{url}: is there already; archives are never overwritten. Name another or remove it.")
    try:
        with _there(url):
            file = _Remote(url, filesystem.open(path, "wb"))
        with closing(file):
            yield file  # type: ignore[misc]  # write is all that is asked of it
    except BaseException:  # what was uploaded has no end and passes for no archive; still, take it away
        with suppress(Exception):
            filesystem.rm(path)
        raise


def _filesystem(url: str) -> tuple[Any, str]:
    try:
        fsspec = import_module("fsspec")
    except ModuleNotFoundError:
        raise UsageError(f"{url}: a URL needs the package fsspec: pip install fsspec. A path needs nothing.") from None
    with reached(url):
        try:
            filesystem, path = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:  # of the protocol: fsspec's text names the package to install
            raise UsageError(f"{url}: fsspec cannot open it: {error}") from None
    return filesystem, str(path)
