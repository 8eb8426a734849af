"""Replaying a run: what to ask, of whom, and what is kept. Interrupted at any moment, it goes on where it stopped."""

import hashlib
import json
import os
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pyarrow as pa
import torch

from tracer.errors import UsageError
from tracer.replay.agreement import Agreement
from tracer.replay.answering import Answering, Opened, Processes, answers
from tracer.replay.at_reference import AtReference
from tracer.replay.curvature import Critical, SecondMoments, Sharpness
from tracer.replay.double import DoubleEngine, InDouble
from tracer.replay.engine import Engine, machine
from tracer.replay.pairs import take_lock, write_pairs
from tracer.replay.points import Reference, references
from tracer.replay.population import FullBatch, Jensen
from tracer.replay.products import block_names
from tracer.replay.questions import MOST_NODES, AlongGradient, BlockGaps, Profile, Question, Repeat
from tracer.replay.source import Source
from tracer.replay.workload import Loaded, load
from tracer.store import Trace
from tracer.store.home import resolve_run, tables_root
from tracer.store.replays import Index, Results

SEAL_STEPS, SEAL_SECONDS = 512, 20.0  # what a killed replay loses at most

Progress = Callable[[str, int, int], None]  # table, steps done, steps in all


@dataclass(frozen=True)
class Asked:
    """What to replay; zero is not at all, n is every n-th step (or as said).

    Args:
        references: names of reference points, see :func:`tracer.replay.points.references`.
        gradients: at reference points also the gradient.
        every: of references and profile.
        profile: number of Gauss nodes along each step, at most 1000.
        block_gaps: each tensor moved alone.
        along_gradient: loss and gradient at steps of several lengths along the gradient.
        jensen: length of a window, in steps.
        full_batch: loss and gradient of the whole data set.
        critical: the critical sharpness.
        sharpness: the largest Hessian eigenvalue.
        float64: losses and slopes along the step in double precision.
        repeat: at how many steps the recorded loss is asked again, first of all.
    """

    references: Sequence[str] = ()
    gradients: bool = False
    every: int = 1
    profile: int = 0
    block_gaps: int = 0
    along_gradient: int = 0
    jensen: int = 0
    full_batch: int = 0
    critical: int = 0
    sharpness: int = 0
    float64: int = 0
    repeat: int = 200

    def check(self) -> None:
        """Raise UsageError where a number makes no sense."""
        for name, value in asdict(self).items():
            if name in ("references", "gradients"):
                continue
            least, profile = int(name in ("every", "repeat")), name == "profile"
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or value < least or (profile and value > MOST_NODES):
                most = f" and at most {MOST_NODES}" if profile else ""
                raise UsageError(f"replay: {name}={value!r}; expected a whole number of at least {least}{most}.")


@dataclass(frozen=True)
class Report:
    """What a replay found: tables by name with their rows, agreement with the recorded losses, and a warning."""

    directory: Path
    tables: dict[str, int]
    agreement: Agreement
    warning: str | None


def replay(
    run: str | os.PathLike[str],
    asked: Asked,
    *,
    workload: str | None = None,
    allow: Sequence[str] = (),
    changed_source: bool = False,
    accept_disagreement: bool = False,
    device: str = "cpu",
    jobs: int = 1,
    into: Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Evaluate stored minibatches at stored points again, and keep what comes out beside the run's tables.

    First the recorded losses are asked again: how far they are apart is the noise of all the rest. Results are sealed
    as they are found; what is there already is not asked again, whether this was interrupted or asks for more.

    Args:
        run: a run id, or the path of a run's directory; recorded with ``record_batches=True``.
        workload: ``"package.module:name"`` instead of the one that the run names; giving it allows it.
        allow: modules that may be imported for the run's own workload.
        changed_source: go on although its source is not the recorded one.
        accept_disagreement: go on although it does not give the recorded losses.
        device: as torch calls it, ``"cpu"`` or ``"cuda"``.
        jobs: processes that answer, each with a model of its own and as many threads as training had. The numbers are
            the same; a small model leaves most of a machine idle otherwise.
        into: directory of the run's tables, ``$LEMMATA_HOME/tables/RUN`` unless given.
        progress: called with the name of a table, steps done and steps in all.

    Raises:
        UsageError: no minibatches were recorded, the workload is not allowed or has changed or builds another model, a
            reference is not there, or another process is replaying this run.
        LemmataError: the replayed losses are not the recorded ones, or one of several processes died.
        FormatError: a file of the run or of the results is damaged.
    """
    asked.check()
    if jobs < 1:
        raise UsageError(f"replay: jobs={jobs}; expected a whole number of at least 1.")
    call = _Call(resolve_run(run), asked, workload, tuple(allow), changed_source, device, into)
    replayed = call.replayed(progress)
    replayed.results.directory.mkdir(parents=True, exist_ok=True)
    lock = take_lock(replayed.results.directory)
    try:
        with machine(replayed.threads, replayed.device):
            return _replay(call, replayed, jobs, accept_disagreement)
    finally:
        lock.release()


def place_of(device: str) -> torch.device:
    """The device of this name; raises UsageError where this machine has none."""
    try:
        place = torch.device(device)
    except RuntimeError:
        place = None
    if place is None or place.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {device}: expected cpu, cuda or one such as cuda:0.")
    found = torch.cuda.device_count() if place.type == "cuda" and torch.cuda.is_available() else 0
    if place.type == "cuda" and (place.index or 0) >= found:
        raise UsageError(f"--device {device}: expected a CUDA device of this machine; found {found}. Try cpu.")
    return place


@dataclass(frozen=True)
class _Call:
    """What was asked for, as plain values: another process can make the same of it."""

    path: Path
    asked: Asked
    workload: str | None
    allow: tuple[str, ...]
    changed_source: bool
    device: str
    into: Path | None

    def replayed(self, progress: Progress | None = None) -> "_Replay":
        trace = Trace(self.path)
        manifest = trace.manifest
        if not manifest.batches:
            raise UsageError(
                f"{self.path}: recorded without minibatches, so there is nothing to ask. Record with "
                "record_batches=True (lemmata record NAME --batches)."
            )
        place = place_of(self.device)
        loaded = load(manifest.workload, self.workload, self.allow, self.changed_source)
        directory = self.into or tables_root() / trace.run_id
        if not isinstance(directory, Path):
            raise UsageError(
                f"LEMMATA_TABLES={directory.parent}: a replay adds to its files, expected a directory; found a URL. "
                "Replay with a directory of tables."
            )
        return _Replay(trace, trace.digest, loaded, place, Results(directory), directory, progress)

    def opened(self, replayed: "_Replay | None" = None) -> Opened:
        replayed = replayed or self.replayed()
        source = Source(replayed.trace)
        found = references(source, self.asked.references)
        engine = Engine(replayed.loaded, replayed.trace.manifest, replayed.device)
        questions = {question.table: question for question in _questions(replayed, self.asked, found)}
        return Opened(engine, source, questions, replayed.device, replayed.threads)


@dataclass
class _Replay:
    """What stays the same from question to question."""

    trace: Trace
    digest: str
    loaded: Loaded
    device: torch.device
    results: Results
    directory: Path
    progress: Progress | None

    @property
    def threads(self) -> int | None:
        """Of torch, as training had them; None where that was not recorded."""
        return (self.trace.manifest.workload or {}).get("threads")

    def fingerprint(self, question: Question) -> str:
        """16 digits that stand for everything the numbers of a table depend on."""
        about = (
            self.digest, self.loaded.path, self.loaded.source, self.device.type, torch.__version__,
            question.table, str(question.schema), question.settings,
        )  # fmt: skip
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]

    def index(self) -> Index:
        """The results so far; those of another state of the trace are not."""
        found = self.results.index()
        tables = found.tables if found is not None and found.digest == self.digest else {}
        return Index(
            run_id=self.trace.run_id,
            digest=self.digest,
            workload={"path": self.loaded.path, "source": self.loaded.source, "changed": self.loaded.changed},
            machine={"device": self.device.type, "torch": torch.__version__, "threads": torch.get_num_threads()},
            tables=tables,
        )


def _replay(call: _Call, replayed: _Replay, jobs: int, accept: bool) -> Report:
    opened, asked = call.opened(replayed), call.asked
    if asked.full_batch and not opened.engine.has_full_data():
        raise UsageError(f"--full-batch: the workload {replayed.loaded.path!r} has no full_data().")
    with _answering(call, opened, jobs) as ask:
        repeat, *questions = opened.questions.values()
        index = _answer(replayed, opened.source, ask, repeat, replayed.index())
        agreement = Agreement.of(replayed.results.read(replayed.fingerprint(repeat), repeat.schema))
        index = replace(index, noise=agreement.as_json(replayed.trace.manifest))
        replayed.results.write_index(index)
        warning = agreement.require(replayed.trace.manifest, accept)
        for question in questions:
            if not _covered(replayed, question, index):
                index = _answer(replayed, opened.source, ask, question, index)
    write_pairs(replayed.results, replayed.directory, replayed.digest, index)
    replayed.results.sweep(index)
    rows = {name: replayed.results.read(entry["fingerprint"]).num_rows for name, entry in index.tables.items()}
    return Report(replayed.directory, rows, agreement, warning)


@contextmanager
def _answering(call: _Call, opened: Opened, jobs: int) -> Iterator[Answering]:
    if jobs == 1:
        yield lambda question, rows: answers(question, opened.engine, opened.source, rows)
    else:
        with Processes(jobs, call.opened) as processes:
            yield processes


def _questions(replayed: _Replay, asked: Asked, found: Sequence[Reference]) -> list[Question]:
    manifest = replayed.trace.manifest
    names = block_names(manifest)
    questions: list[Question] = [Repeat(asked.repeat)]
    questions += [AtReference(each, asked.gradients, asked.every, names) for each in found]
    if asked.profile:
        questions.append(Profile(asked.profile, asked.every, names))
    if asked.block_gaps:
        questions.append(BlockGaps(asked.block_gaps, names))
    if asked.along_gradient:
        questions.append(AlongGradient(asked.along_gradient))
    if asked.jensen:
        questions.append(Jensen(asked.jensen))
    if asked.full_batch:
        questions.append(FullBatch(asked.full_batch))
    if asked.critical:
        questions.append(Critical(asked.critical))
    if asked.sharpness:
        questions.append(Sharpness(asked.sharpness, SecondMoments()))
    if asked.float64:
        of = replayed.loaded, manifest, replayed.device
        questions.append(InDouble(asked.float64, lambda: DoubleEngine(*of)))
    return questions


def _answer(replayed: _Replay, source: Source, ask: Answering, question: Question, index: Index) -> Index:
    """Answer what is not answered yet."""
    results, fingerprint = replayed.results, replayed.fingerprint(question)
    done = set(results.read(fingerprint, question.schema)["step"].to_pylist())
    all_rows = question.rows(source)
    left = [row for row in all_rows if int(source.steps[row]) not in done]
    entry = {"fingerprint": fingerprint, "settings": question.settings, "complete": False}
    index = replace(index, tables={**index.tables, question.table: entry})
    results.write_index(index)
    waiting: list[pa.Table] = []
    sealed_at, steps = time.monotonic(), 0

    def seal() -> None:
        if any(table.num_rows for table in waiting):
            results.seal(fingerprint, pa.concat_tables(waiting).combine_chunks())

    def tell(done: int) -> None:
        if replayed.progress:
            replayed.progress(question.table, done, len(all_rows))

    tell(len(all_rows) - len(left))
    for stretch, table in ask(question, left):
        waiting.append(table)
        steps += len(stretch)
        if steps >= SEAL_STEPS or time.monotonic() - sealed_at > SEAL_SECONDS:
            seal()
            waiting, sealed_at, steps = [], time.monotonic(), 0
        tell(bisect_left(all_rows, stretch[-1]) + 1)
    seal()
    tell(len(all_rows))
    index = replace(index, tables={**index.tables, question.table: {**entry, "complete": True}})
    results.write_index(index)
    return index


def _covered(replayed: _Replay, question: Question, index: Index) -> bool:
    """Whether a reference was replayed with gradients already, and is asked for without them now."""
    if not isinstance(question, AtReference) or question.gradients:
        return False
    entry = index.tables.get(question.table, {})
    richer = replayed.fingerprint(replace(question, gradients=True))
    return bool(entry.get("complete")) and entry["fingerprint"] == richer
