"""The tables of docs/format.md, made from the code that reads and writes the files.

``python -m tracer.store.describe`` rewrites them in place; a test holds the page to them.
"""

import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args

from tracer.store.archive import ChunkHead, Head
from tracer.store.header import Header
from tracer.store.layout import BUFFER, SEAL, STREAMS, Layout, record_schema
from tracer.store.manifest import Block, Manifest
from tracer.store.minibatch import ArrayHead, BatchHead
from tracer.store.predict import NUMBERS

_BEGIN, _END = "<!-- {}: made by python -m tracer.store.describe -->", "<!-- end -->"

_MANIFEST = {
    "run_id": "name of the run, and of its Dagster partition",
    "created": "when recording began, UTC",
    "blocks": "the recorded parameter tensors; see below",
    "streams": "which vectors a step may have; see above",
    "dtype": "of the stored vectors: `float32` or `float64`, wide enough to hold every parameter exactly",
    "hyperparameters": "names of the optimizer's numbers in the step records",
    "loss_dtype": "dtype of the loss as training computed it; it limits what a loss difference can resolve",
    "optimizer": "class; per group its parameters, blocks and settings that are not numbers; whether points may change "
    "besides the updates",
    "plan": "which steps and which probes were asked for",
    "config": "what the user passed as `config=`",
    "versions": "of Python and of the packages that recorded",
    "frozen_parameters": "how many of the model's parameters were not trained, hence not recorded",
    "unrecorded_parameters": "how many were trained but left out because the user asked for some blocks only",
    "attempts": "one entry per process that recorded: when it began, its process id, its first step",
    "ended": "why recording stopped: reason, time, steps, chunks; null while it runs and after a kill",
    "certificate": "what `lemmata certify` found: whether training with the tracer is bit for bit the one without",
    "branch_of": "run id and step of the run whose checkpoint this one starts from, or null",
    "batches": "true where minibatches are recorded; the field is absent otherwise",
    "data": "only where minibatches are rows of a data set: its `examples`, `tensors` and `fingerprint`",
    "workload": "only where one was named: its import `path`, SHA-256 of its `source`, torch's `threads`",
    "format": "this page's version",
}
_BLOCK = {
    "name": "of the parameter, as `model.named_parameters()` gives it",
    "shape": "of the tensor",
    "dtype": "of the parameter in training",
    "offset": "where it begins in every vector, in elements",
    "size": "its elements",
}
_STREAMS = {
    **STREAMS,
    f"{BUFFER}NAME": "what the optimizer keeps under NAME (`momentum_buffer`, `exp_avg`), after the update",
}
_HEADER = {
    "run_id": "the run this chunk belongs to",
    "attempt": "which process wrote it; counts from 1",
    "rows": "steps the file has room for",
    "parameters": "numbers per vector, *d*",
    "dtype": "of the vectors",
    "streams": "byte offset of each stream's first row",
    "commit": "byte offset of the commit table",
    "seal": "byte offset of the seal",
    "size": "bytes of the whole file",
    "metadata": "start and length of every piece that HDF5 wrote",
    "metadata_xxh3": "hash of those pieces, one after the other",
    "lemmata_format": "this page's version",
    "batches": "as in the manifest",
}
_COMMIT = {
    "step": "the step plus one; 0 where nothing has been written yet",
    "present": "bit *i* is set if stream *i* was recorded at this step",
    "record": "hash of the step record's message in the open record file",
    "record_end": "where that message ends in the open record file",
    "hashes": "of each slice of each stream's row; 0 for a stream that is not present",
    "batches": "only where minibatches are recorded: hash of the step's message, 0 for a step without a minibatch",
    "batches_end": "only where minibatches are recorded: where that message ends in the file of minibatches",
    "check": "hash of this record up to here",
}
_SEAL = {
    "rows": "steps in the file, all of its rows",
    "commits": "hash of the commit table",
    "records": "hash of the sealed record file",
    "check": "hash of the seal up to here",
}
_RECORD = {
    "step": "optimizer updates before this one",
    "time_ns": "wall clock when the step ended, nanoseconds since 1970 UTC",
    "loss": "f(x_t, z_t): what backward() differentiated, before loss scaling",
    "loss_previous": "f(x_{t-1}, z_t), from the look-back probe",
    "loss_next": "f(x_{t+1}, z_t), from the look-ahead probe",
    "epoch": "as the user gave it",
    "batch": "the minibatch's id, as the user gave it",
    "random_scale": "s_t, if the update was multiplied by a random number",
    "clip_factor": "what the gradient was multiplied by after it was recorded",
    "clip_value": "what the gradient's elements were clamped to, plus or minus, after it was recorded",
    "finite": "whether losses and vectors are all finite",
    "skipped": "true where a gradient scaler left out the update; such a step has no gradient",
    "hyper:NAME": "the optimizer's numbers, for instance `hyper:group0.lr`",
}
_ARCHIVE = {
    "run_id": "name of the run, and of the directory that `restore` makes",
    "digest": "hash of the run's content, which the restored run must have",
    "status": "`closed` or `interrupted`",
    "steps": "acknowledged rows, closing rows that gave way to a later attempt's first step among them",
    "chunks": "chunks of the run",
    "parameters": "numbers per vector, *d*",
    "dtype": "of the vectors",
    "streams": "as in the manifest",
    "vector_bytes": "bytes of all recorded vectors",
    "guess": "how the next point is guessed: `replay`, `line` or `last`",
    "h_from_g": "whether h is stored as its difference to g",
    "lemmata_format": "format of the run",
    "lemmata_archive": "version of this section",
    "batches": "as in the manifest",
}
_CHUNK = {
    "number": "of the chunk, from 0",
    "sealed": "whether it was sealed",
    "attempt": "as in the chunk's header",
    "rows": "as in the chunk's header",
    "steps": "acknowledged steps in it",
    "record_bytes": "size of its record file; of an open one, up to the last acknowledged step",
}
_BATCH = {
    "weight": "what backward() multiplied the loss by, without loss scaling; `nan`, `inf` or `-inf` as text",
    "training": "the model's train/eval flag",
    "exceptions": "names of the modules whose flag was the other one",
    "autocast": "kind of device to dtype, for those under autocast around the call",
    "tensors": "the named tensors, in the order in which their bytes follow",
    "random": "every random stream's state before the loss drew from one of them; empty if it drew from none",
}
_ARRAY = {
    "name": "as the user gave it; of a random stream see below",
    "dtype": "of the tensor, as torch calls it",
    "shape": "of the tensor; a list without entries is a single number",
}
_NUMBERS = {
    "clip": "what the recorded gradient is multiplied by, first of all",
    "couple": "what x is multiplied by and then added to the gradient; this sum is *u*",
    "keep_m": "what *m* is multiplied by",
    "take_m": "what *u* is multiplied by and then added to *m*",
    "keep_v": "what *v* is multiplied by",
    "take_v": "what *u*² is multiplied by and then added to *v*; zero: there is no *v*",
    "ahead": "what *u* is multiplied by and then added to *m*, giving the step *s*; zero: *s* is *m*",
    "root": "what √*v* is multiplied by",
    "eps": "added to that; *s* is divided by the sum",
    "rate": "what *s* is multiplied by, last of all",
    "decay": "what x is multiplied by before *s* is subtracted",
}


def tables() -> dict[str, str]:
    """Name of each generated part of the page, and its text."""
    commit = Layout(("x",), 1, "float32", batches=True).commit
    schema = record_schema(("NAME",))
    return {
        "manifest": _fields(_types(Manifest), _MANIFEST),
        "block": _fields(_types(Block), _BLOCK),
        "streams": _fields([(name, "vector") for name in (*STREAMS, f"{BUFFER}NAME")], _STREAMS),
        "header": _fields(_types(Header), _HEADER),
        "commit": _fields([(n, _numpy(commit, n)) for n in commit.names or ()], _COMMIT),
        "seal": _fields([(n, _numpy(SEAL, n)) for n in SEAL.names or ()], _SEAL),
        "micro-batch": _fields(_types(BatchHead), _BATCH),
        "array": _fields(_types(ArrayHead), _ARRAY),
        "archive": _fields(_types(Head), _ARCHIVE),
        "archived chunk": _fields(_types(ChunkHead), _CHUNK),
        "numbers": _fields([(name, "double") for name in NUMBERS], _NUMBERS),
        "record": _fields([(f.name, f"{f.type}" + ("" if f.nullable else ", never null")) for f in schema], _RECORD),
    }


def rewrite(page: str) -> str:
    """``page`` with every generated part as the code has it now."""
    for name, table in tables().items():
        begin = _BEGIN.format(name)
        before, found, rest = page.partition(begin)
        if not found:
            raise ValueError(f"docs/format.md: the line {begin!r} is missing")
        page = f"{before}{begin}\n{table}\n{_END}{rest.partition(_END)[2]}"
    return page


def _fields(columns: list[tuple[str, str]], says: dict[str, str]) -> str:
    rows = [f"| `{name}` | {kind} | {says[name]} |" for name, kind in columns]
    return "\n".join(["| field | type | meaning |", "|---|---|---|", *rows])


def _types(record: type) -> list[tuple[str, str]]:
    """Fields of a dataclass with their types as JSON has them."""
    words = {
        "str": "text",
        "int": "integer",
        "bool": "true or false",
        "None": "null",
        "Mapping": "object",
        "dict": "object",
        "tuple": "list",
    }
    found = []
    for f in fields(record):
        text = f.type.__name__ if isinstance(f.type, type) and not get_args(f.type) else str(f.type)
        text = re.sub(r"\b[a-z]+(\.[a-z_]+)*\.(?=[A-Z])", "", text).replace(", ...", "").replace("[str, Any]", "")
        text = re.sub(r"\w+", lambda word: words.get(word[0], word[0]), text).replace(" | ", " or ")
        text = text.replace("[", " of ").replace("]", "").replace("object of text, ", "object of ")
        found.append((f.name, text.replace("list of integer, integer", "pairs of integers")))
    return found


def _numpy(dtype: object, name: str) -> str:
    part = dtype[name]  # type: ignore[index]
    return "uint64 per stream and slice" if part.shape else str(part)


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/format.md")
    target.write_text(rewrite(target.read_text(encoding="utf-8")), encoding="utf-8")
