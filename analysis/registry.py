"""All metrics there are: built in, from the user's directories, from installed packages.

A metric file defines one :class:`~analysis.metric.Metric` under the name ``metric``. Files of one's own stand in the
directories that the environment variable ``LEMMATA_METRICS`` lists (absolute, separated like ``PATH``); files whose
name starts with an underscore are left alone. A package offers metrics through the entry point group
``lemmata.metrics``. A file that cannot be loaded is set aside with its error and never stops the others.
"""

import importlib
import os
import pkgutil
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

import analysis.metrics
from analysis.metric import Metric
from tracer.errors import UsageError

VARIABLE = "LEMMATA_METRICS"
GROUP = "lemmata.metrics"


def metrics() -> dict[str, Metric]:
    """Every metric that loads, by name; the built-in ones first. Files are read anew at each call."""
    return _load()[0]


def broken_metrics() -> dict[str, str]:
    """What did not load and why, by where it stands (file, directory or entry point); empty if all is well.

    Two metrics of one name are an entry too, which names both places; the first one found is kept.
    """
    return _load()[1]


def sources() -> dict[str, Path]:
    """File of every metric that loads, by name; what an entry point offers may have none."""
    return {name: file for name, place in _load()[2].items() if (file := _file(place)) is not None}


def _file(place: str) -> Path | None:
    if place.startswith(analysis.metrics.__name__ + "."):
        return Path(analysis.metrics.__file__).with_name(f"{place.rpartition('.')[2]}.py")
    return Path(place) if os.path.isabs(place) else None


def _load() -> tuple[dict[str, Metric], dict[str, str], dict[str, str]]:
    found: dict[str, Metric] = {}
    places: dict[str, str] = {}
    broken: dict[str, str] = {}
    for place, load in _sources():
        try:
            metric = load()
            if metric.name in found:
                raise UsageError(
                    f"two metrics are named {metric.name!r}: {places[metric.name]} and {place}. The first is kept; "
                    "rename one of them."
                )
        except (Exception, SystemExit) as error:  # a user's file may raise anything; the others must go on
            broken[place] = f"{type(error).__name__}: {error}"
        else:
            found[metric.name], places[metric.name] = metric, place
    return found, broken, places


def _sources() -> Iterator[tuple[str, Callable[[], Metric]]]:
    for module in pkgutil.iter_modules(analysis.metrics.__path__):
        name = f"analysis.metrics.{module.name}"
        yield name, partial(_built_in, name)
    for directory in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        yield from _in_directory(directory)
    for point in sorted(entry_points(group=GROUP), key=lambda p: (p.name, p.value)):
        yield f"entry point {point.name} = {point.value}", partial(_of_entry_point, point)


def _in_directory(directory: str) -> Iterator[tuple[str, Callable[[], Metric]]]:
    path = Path(directory)
    if not path.is_absolute() or not path.is_dir():
        yield directory, partial(_refuse, directory)
        return
    for file in sorted(path.glob("*.py")):
        if not file.name.startswith("_"):
            yield str(file), partial(load_file, file)


def _refuse(directory: str) -> Metric:
    raise UsageError(f"{VARIABLE} lists {directory!r}: expected the absolute path of a directory that exists.")


def _built_in(name: str) -> Metric:
    return _metric_of(importlib.import_module(name), name)


def load_file(file: Path) -> Metric:
    """The metric of one file.

    Raises:
        UsageError: the file defines none under the name ``metric``; whatever the file itself raises.
    """
    # not imported by name: no entry in sys.modules to clash, no __pycache__ beside the user's file, no sys.path, no cwd
    module = ModuleType(f"lemmata_metric_{file.stem}")
    module.__file__ = str(file)
    exec(compile(file.read_bytes(), str(file), "exec", dont_inherit=True), module.__dict__)
    return _metric_of(module, str(file))


def _of_entry_point(point: EntryPoint) -> Metric:
    loaded = point.load()
    return loaded if isinstance(loaded, Metric) else _metric_of(loaded, point.value)


def _metric_of(module: ModuleType, place: str) -> Metric:
    metric = getattr(module, "metric", None)
    if not isinstance(metric, Metric):
        found = "no such name" if metric is None else f"a {type(metric).__name__}"
        raise UsageError(f"{place}: expected `metric = Metric(...)`, found {found}.")
    return metric
