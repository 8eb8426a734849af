"""Reference losses without stored minibatches: the training runs a second time, and is asked on its way.

A reference that is made of a run is known when the run is over. Whoever did not keep the minibatches can train again,
from the same seed: the same minibatches come by, and each is evaluated at the reference points as well.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from tracer.errors import LemmataError, UsageError
from tracer.losses import Losses, differentiable
from tracer.probe import Closure, Move, ask, frozen
from tracer.ranks import Ranks
from tracer.replay.agreement import Agreement
from tracer.replay.at_reference import AtReference
from tracer.replay.pairs import take_lock, write_pairs
from tracer.replay.points import references as points_of
from tracer.replay.products import block_names, products
from tracer.replay.questions import Question, Repeat, eligible, table_of
from tracer.replay.source import Source
from tracer.scaling import Scaling
from tracer.store import Trace
from tracer.store.home import resolve_run, tables_root
from tracer.store.replays import Index, Results
from tracer.subject import Subject, inside
from tracer.surroundings import Generator, Surroundings
from tracer.untraced import Untraced

Array = npt.NDArray[Any]

EARLY = 20  # steps after which it must look like the first training
SEAL_STEPS, SEAL_SECONDS = 512, 20.0
LOSS = "the recorded loss"  # the name of its sum; no reference is called so


class SecondPass(Untraced):
    """Stands where the :class:`tracer.Tracer` of a recorded run stood, and completes the run's reference pairs.

    Training is left as it is, bit for bit, as with the tracer's own probes. Nothing of it is recorded again: at each
    recorded step f(y, z_t) and ∇f(y, z_t) are evaluated at every reference point y, and their products with the
    recorded vectors are kept beside the run's tables, as ``lemmata replay`` does.

    That z_t is that of the first training is checked: its loss must be the recorded one, up to what rounding explains.
    On the processor it is so bit for bit, and :attr:`warning` is None.

    Args:
        run: the run that was recorded, ended; a run id or a path.
        model, optimizer: as for the first training, from the same seed. All trained parameters must be recorded.
        references: names of reference points, as for ``lemmata replay``.
        accept_disagreement: go on although losses are not the recorded ones.
        resume_at: the first step of this training, where it goes on from a checkpoint.
        into: directory of the run's tables, ``$LEMMATA_HOME/tables/RUN`` unless given.
        grad_scaler, generators: as for the tracer. What else a tracer takes is taken and has no effect here.

    Raises:
        UsageError: another model, a reference that the run does not have, or processes that train together.
        LemmataError: in a step or at the end, that this is not the training that was recorded.

    Example:
        ``with SecondPass("digits", model, optimizer, references=["last"]) as tracer:`` and the loop as it was.
    """

    def __init__(
        self,
        run: str | os.PathLike[str],
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        references: Sequence[str],
        accept_disagreement: bool = False,
        resume_at: int | None = None,
        into: Path | None = None,
        grad_scaler: "torch.amp.GradScaler | None" = None,
        generators: Sequence[Generator] = (),
        **options: Any,
    ) -> None:
        trace = Trace(resolve_run(run))
        self._trace, self._accept = trace, accept_disagreement
        if Ranks(model, model.parameters()).count > 1:
            raise UsageError("SecondPass: processes that train together are not supported. Train in one process.")
        self._subject = _subject(trace, model, optimizer)
        self._source = Source(trace)
        names = block_names(trace.manifest)
        self._questions = [AtReference(found, True, 1, names) for found in points_of(self._source, references)]
        if not self._questions:
            raise UsageError("SecondPass: references=[] asks nothing. Name some, for instance ['last', 'tail_mean'].")
        self._rows = {int(self._source.steps[row]): row for row in eligible(self._source)}
        device = self._subject.parameters[0].device
        flats = {
            q.table: torch.empty(trace.parameters, dtype=self._subject.dtype, device=device) for q in self._questions
        }
        self._flats = flats
        self._views = {name: self._subject.views(flat) for name, flat in flats.items()}
        self._standing: dict[str, int | str | None] = dict.fromkeys(flats, "nowhere")  # the epoch whose point that is
        tables = [q.table for q in self._questions]
        self._losses = Losses(self._subject, tuple(tables), {"g": LOSS, **{name: name for name in tables}})
        self._scaling = Scaling(grad_scaler, optimizer)
        self._surroundings = Surroundings(inside(model), self._subject.trained, generators)
        self._directory = into or tables_root() / trace.run_id
        self._open(device)
        super().__init__(run, model, optimizer)
        self.step = resume_at or 0
        self.warning: str | None = None
        self._before = optimizer.register_step_pre_hook(self._complete)

    def loss(self, closure: Closure, **given: Any) -> torch.Tensor:
        """The training loss, evaluated and returned as :meth:`tracer.Tracer.loss` does."""
        if self._scaling.dropped() and self._losses.asked:  # the scaler left out an update
            self._losses.forget()
            self.step += 1
        row = self._rows.get(self.step)
        if row is None:
            self._losses.asked += 1
            return closure()
        answers = {}
        for question in self._questions:
            if self._place(question, row):
                at = Move(self._subject.parameters, self._views[question.table])
                answers[question.table] = ask(
                    frozen(closure), self._subject.parameters, self._surroundings, at=at, scale=self._scaling.scale
                )
        loss = differentiable(closure())
        self._losses.add(loss, answers, None, self._scaling.scale, self._scaling.backward_begins)
        return loss

    def close(self) -> None:
        """Check that it was the recorded training, and hand its pairs to the geometry."""
        if not self._closed:
            self._seal()
            whole = all(len(self._done[name]) >= len(self._rows) for name in self._done)
            agreement = self._agreement()
            self.warning = agreement.require(self._trace.manifest, self._accept)
            self._write_index(whole, agreement)
            self._release()
            if not whole:
                left = len(self._rows) - min(map(len, self._done.values()))
                self.warning = f"{left} recorded steps did not come by, so the pairs are not complete" + (
                    f"; {self.warning}" if self.warning else ""
                )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self._release()

    # --- one step -------------------------------------------------------------------------------------------------

    def _place(self, question: AtReference, row: int) -> bool:
        """Put the reference point of this step's epoch into its buffer; False where there is none."""
        known = self._source.epoch(row)
        point = question.reference.of(known)
        if point is None:
            return False
        if self._standing[question.table] != known:
            self._flats[question.table].copy_(torch.from_numpy(np.array(point)))
            _require_standable(self._views[question.table], self._subject.parameters)
            self._standing[question.table] = known
        return True

    def _complete(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before the update: what was found becomes rows."""
        row = self._rows.get(self.step)
        if row is None or self._scaling.left_out():
            self._losses.forget()
            return
        self._scaling.refuse_unknown()
        self._losses.check(self.step, needed=True)
        found = {name: float(value) for name, value in self._losses.totals.items()}
        recorded = self._source.records["loss"][row]
        nothing = (math.nan, math.nan)
        recorded = math.nan if recorded is None else float(recorded)
        self._keep(self._repeat, table_of([(self.step, recorded, found[LOSS], *nothing)], self._repeat.schema))
        visit = self._source.visit(row, before=True)
        x, g, before = (None if v is None else self._tensor(v) for v in (visit.x, visit.g, visit.before))
        for question in self._questions:
            table = question.schema.empty_table()
            if question.table in self._losses.filled and x is not None and g is not None:
                y, gy = self._flats[question.table], self._gradient(question.table)
                values = products(self._trace.blocks, x, y, g, gy, before)
                table = question.table_of(np.array([self.step]), np.array([found[question.table]]), values[None])
            self._keep(question, table)
        self._losses.forget()
        if len(self._done[self._repeat.table]) == EARLY:
            self._seal()
            self._agreement().require(self._trace.manifest, self._accept)
        elif time.monotonic() - self._sealed_at > SEAL_SECONDS or self.step % SEAL_STEPS == 0:
            self._seal()

    def _tensor(self, vector: Array) -> torch.Tensor:
        return torch.from_numpy(vector).to(self._subject.parameters[0].device)

    def _gradient(self, table: str) -> torch.Tensor:
        return self._losses.flat[table].clone()

    # --- results --------------------------------------------------------------------------------------------------

    def _open(self, device: torch.device) -> None:
        self._results = Results(self._directory)
        self._results.directory.mkdir(parents=True, exist_ok=True)
        self._lock = take_lock(self._results.directory)
        self._closed = False
        self._repeat = Repeat(max(1, len(self._rows)))
        asked: list[Question] = [self._repeat, *self._questions]
        self._prints = {q.table: self._fingerprint(q, device) for q in asked}
        self._schemas = {q.table: q.schema for q in asked}
        self._settings: Mapping[str, Any] = {q.table: q.settings for q in asked}
        self._done = {
            t: set(self._results.read(p, self._schemas[t])["step"].to_pylist()) for t, p in self._prints.items()
        }
        self._waiting: dict[str, list[pa.Table]] = {table: [] for table in self._prints}
        self._machine = {"device": device.type, "torch": torch.__version__, "threads": torch.get_num_threads()}
        self._sealed_at = time.monotonic()

    def _fingerprint(self, question: Question, device: torch.device) -> str:
        about = ("second pass", self._trace.digest, device.type, torch.__version__, question.table,
                 str(question.schema), question.settings)  # fmt: skip
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]

    def _keep(self, question: Question, table: pa.Table) -> None:
        if self.step not in self._done[question.table]:
            self._waiting[question.table].append(table)
            self._done[question.table].add(self.step)

    def _seal(self) -> None:
        for table, parts in self._waiting.items():
            if any(part.num_rows for part in parts):
                self._results.seal(self._prints[table], pa.concat_tables(parts).combine_chunks())
            parts.clear()
        self._sealed_at = time.monotonic()

    def _agreement(self) -> Agreement:
        return Agreement.of(self._results.read(self._prints[self._repeat.table], self._repeat.schema))

    def _write_index(self, whole: bool, agreement: Agreement) -> None:
        found = self._results.index()
        if found is None or found.digest != self._trace.digest:
            found = Index(self._trace.run_id, self._trace.digest)
        mine = {
            table: {"fingerprint": fingerprint, "settings": self._settings[table], "complete": whole}
            for table, fingerprint in self._prints.items()
        }
        workload = {"path": "second pass", "source": None, "changed": False}
        index = replace(found, workload=workload, machine=self._machine, noise=agreement.as_json(self._trace.manifest),
                        tables={**found.tables, **mine})  # fmt: skip
        self._results.write_index(index)
        write_pairs(self._results, self._directory, self._trace.digest, index)
        self._results.sweep(index)

    def _release(self) -> None:
        if not self._closed:
            self._closed = True
            self._before.remove()
            super().close()
            self._lock.release()


def _subject(trace: Trace, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Subject:
    """What the optimizer trains, if it is what the run recorded."""
    manifest = trace.manifest
    if manifest.unrecorded_parameters:
        raise UsageError(
            f"{trace.path}: {manifest.unrecorded_parameters:,} trained parameters were not recorded (blocks=...), so "
            "no reference point says where they stand. Record all blocks."
        )
    for with_frozen in (False, True):
        subject = Subject.of(model, optimizer, None, with_frozen, manifest.dtype)
        if subject.blocks == manifest.blocks:
            return subject
    raise UsageError(
        f"{trace.path}: records {manifest.parameters:,} numbers in {len(manifest.blocks)} tensors, and this model and "
        f"optimizer train {sum(b.size for b in subject.blocks):,} in {len(subject.blocks)}, or others. Run the "
        "training that was recorded."
    )


def _require_standable(views: Sequence[torch.Tensor], parameters: Sequence[torch.Tensor]) -> None:
    if not all(torch.equal(v.to(p.dtype).to(v.dtype), v) for v, p in zip(views, parameters, strict=True)):
        raise LemmataError(
            "SecondPass: parameters are of fewer digits than this reference point, so the model cannot stand there. "
            "Ask for recorded points: last, initial, best_loss, epoch_last."
        )
