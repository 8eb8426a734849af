"""Sharpness: the largest Hessian eigenvalue where the run stood, plain and in Adam's metric, and the critical one.

Eigenvalues come from the Lanczos method of ``hessian-eigenthings``; here is only the product H v of a recorded
minibatch, or of the whole data set.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from tracer.errors import LemmataError
from tracer.replay.engine import Engine, Micro
from tracer.replay.questions import ByRow, Row, eligible, schema
from tracer.replay.source import Source

Array = npt.NDArray[Any]
Product = Callable[[torch.Tensor], torch.Tensor]

ITERATIONS = (20, 40, 80)  # of Lanczos: tried one after the other until the residual is small enough
TOLERANCE = 1e-4  # residual / eigenvalue
DOUBLINGS = 60
NARROW = 1 / 16  # width of the bracket of a critical rate, relative to it


@dataclass(frozen=True)
class Sharpness(ByRow):
    """λ_max of the Hessian at x_t, of z_t and of the whole data set where there is one; plain, and D^-1/2 H D^-1/2.

    D = √v̂ + ε is that of the step that leaves x_t, where the optimizer is Adam or AdamW.
    """

    every: int
    moments: "SecondMoments"
    table: ClassVar[str] = "sharpness"
    schema: ClassVar[pa.Schema] = schema(
        step="int64", objective="string", metric="string", eigenvalue="float64", residual="float64",
        iterations="int64", converged="bool",
    )  # fmt: skip

    @property
    def settings(self) -> dict[str, Any]:
        """Which steps, and how exactly."""
        return {"every": self.every, "iterations": list(ITERATIONS), "tolerance": TOLERANCE}

    def rows(self, source: Source) -> list[int]:
        """Steps with a gradient."""
        return eligible(source, self.every)

    def of_row(self, engine: Engine, source: Source, row: int) -> list[Row]:
        """A row per objective and metric."""
        visit = source.visit(row)
        engine.place(visit.x)
        found = []
        for objective, minibatch in objectives(engine, engine.minibatch(visit.batches)):
            product = engine.hessian(minibatch)
            found.append((visit.step, objective, "euclidean", *largest(engine, product)))
            d = self.moments.at(source, row)
            if d is not None:
                root = engine.tensor(d).rsqrt()

                def scaled(v: torch.Tensor, product: Product = product, root: torch.Tensor = root) -> torch.Tensor:
                    return root * product(root * v)

                found.append((visit.step, objective, "adam", *largest(engine, scaled)))
        return found


@dataclass(frozen=True)
class Critical(ByRow):
    """The learning rate of the recorded step direction beyond which the loss at x_t rises, and 2 over it.

    r_c = inf {r > 0 : f(x_t + r u) > f(x_t)}, u = (x_{t+1} − x_t) / lr: doubled or halved from lr, then bisected until
    the bracket is narrow (Kalra et al. 2026).
    """

    every: int
    table: ClassVar[str] = "critical"
    schema: ClassVar[pa.Schema] = schema(
        step="int64", objective="string", rate_low="float64", rate_high="float64", critical_sharpness="float64",
        evaluations="int64",
    )  # fmt: skip

    @property
    def settings(self) -> dict[str, Any]:
        """Which steps, and how exactly."""
        return {"every": self.every, "narrow": NARROW, "doublings": DOUBLINGS, "halvings": "half of the digits"}

    def rows(self, source: Source) -> list[int]:
        """Steps whose next point is there."""
        return eligible(source, self.every, after=True)

    def of_row(self, engine: Engine, source: Source, row: int) -> list[Row]:
        """A row per objective; without a critical rate (the loss never rises, or at once) its numbers are missing."""
        visit, rate = source.visit(row, after=True), source.lr[row]
        if visit.after is None or not rate > 0:
            return []
        x = engine.tensor(visit.x).double()
        u = (engine.tensor(visit.after).double() - x) / float(rate)
        found = []
        for objective, minibatch in objectives(engine, engine.minibatch(visit.batches)):

            def loss(r: float, minibatch: list[Micro] | None = minibatch) -> float:
                engine.place(x + r * u)
                return (engine.whole() if minibatch is None else engine.ask(minibatch)).loss

            low, high, count = bracket(loss, float(rate), halvings(engine.dtype))
            known = 0 < low < high < math.inf
            middle = 4 / (low + high) if known else None
            found.append((visit.step, objective, low if known else None, high if known else None, middle, count))
        return found


def objectives(engine: Engine, minibatch: list[Micro]) -> list[tuple[str, list[Micro] | None]]:
    """What there is to ask: the minibatch, and None for the whole data set."""
    found: list[tuple[str, list[Micro] | None]] = [("minibatch", minibatch)] if minibatch else []
    return [*found, ("full", None)] if engine.has_full_data() else found


def halvings(dtype: torch.dtype) -> int:
    """How often a rate is halved: nearer to the point the rise of a loss is as small as its rounding."""
    return math.ceil(-math.log2(torch.finfo(dtype).eps) / 2)


def bracket(loss: Callable[[float], float], guess: float, halvings: int) -> tuple[float, float, int]:
    """An interval in which ``loss`` crosses its value at 0 on its way up, and how often it was evaluated.

    From 0 where it has risen after ``halvings`` of the guess: it rises at once.
    """
    start, count = loss(0.0), 1

    def rises(r: float) -> bool:
        nonlocal count
        count += 1
        return not loss(r) <= start  # a loss that is not a number has risen

    low, high = 0.0, guess
    if rises(guess):
        for _ in range(halvings):
            low = high / 2
            if not rises(low):
                break
            high = low
        else:
            return 0.0, high, count
    else:
        for _ in range(DOUBLINGS):
            low, high = high, 2 * high
            if rises(high):
                break
        else:
            return low, math.inf, count
    while 1 - low / high > NARROW:
        middle = (low + high) / 2
        low, high = (low, middle) if rises(middle) else (middle, high)
    return low, high, count


def largest(engine: Engine, product: Product) -> tuple[float, float, int, bool]:
    """The largest eigenvalue, its residual, how many products it took in the last try, and whether that was enough."""
    try:
        from hessian_eigenthings import LambdaOperator, lanczos
    except ModuleNotFoundError as missing:
        raise LemmataError(
            "sharpness needs the package hessian-eigenthings. Install it: pip install 'lemmata[replay]'"
        ) from missing
    operator = LambdaOperator(product, engine.size, engine.device, engine.dtype)
    for most in ITERATIONS:
        found = lanczos(operator, k=1, max_iter=min(most, engine.size), tol=TOLERANCE, reorthogonalize=True,
                        which="LA", seed=0)  # fmt: skip
        if bool(found.converged[0]) or most >= engine.size:
            break
    return float(found.eigenvalues[0]), float(found.residuals[0]), int(found.iterations), bool(found.converged[0])


@dataclass
class SecondMoments:
    """D = √v̂ + ε of Adam and AdamW: from the recorded buffer ``exp_avg_sq``, or from all gradients since step 0."""

    _row: int = 0  # the next one to go through
    _v: Array | None = None
    _numbers: dict[str, Array] | None = field(default=None)

    def at(self, source: Source, row: int) -> Array | None:
        """That of the step that leaves x_t, shape ``(d,)``, float64; None where it is not known."""
        numbers = self._known(source)
        beta, eps = numbers.get("betas.1"), numbers.get("eps")
        if beta is None or eps is None or not 0 < beta[row] < 1:
            return None
        recorded = source.stream("buffer:exp_avg_sq", row)
        v = recorded.astype(np.float64) if recorded is not None else self._from_gradients(source, row, numbers)
        if v is None:
            return None
        updates = int(source.steps[row]) + 1  # a skipped one does not count, and none was, where v is from gradients
        return np.asarray(np.sqrt(v / (1 - beta[row] ** updates)) + eps[row])

    def _known(self, source: Source) -> dict[str, Array]:
        if self._numbers is None:
            kind = str(source.trace.manifest.optimizer.get("class", "")).rpartition(".")[2]
            groups = source.trace.manifest.optimizer.get("groups") or [{}]
            records = source.trace.records()
            wanted = ("betas.1", "eps", "weight_decay", "clip_factor")
            plain = kind in ("Adam", "AdamW") and not any(group.get("amsgrad") for group in groups)
            there = [name for name in wanted if plain and name in records.column_names]
            self._numbers = {name: records[name].to_numpy(zero_copy_only=False).astype(float) for name in there}
            decoupled = [group.get("decoupled_weight_decay", kind == "AdamW") for group in groups]
            if "weight_decay" in self._numbers and all(decoupled):
                self._numbers["weight_decay"] = np.zeros(len(source.steps))
        return self._numbers

    def _from_gradients(self, source: Source, row: int, numbers: dict[str, Array]) -> Array | None:
        """v after the update of ``row``; rows come in rising order, and each is read once."""
        if len(source.trace.manifest.attempts) != 1 or int(source.steps[row]) != row:
            return None  # a resumed optimizer brings its moments with it; a gap hides what they saw
        if self._v is None or row + 1 < self._row:
            self._row, self._v = 0, np.zeros(source.trace.parameters)
        beta, decay, clip = numbers["betas.1"], numbers["weight_decay"], numbers["clip_factor"]
        for each in range(self._row, row + 1):
            g, x = source.stream("g", each), source.stream("x", each)
            if g is None or x is None:
                self._v = None
                return None
            u = g.astype(np.float64) * (1.0 if np.isnan(clip[each]) else clip[each]) + decay[each] * x
            self._v = beta[each] * self._v + (1 - beta[each]) * u * u
        self._row = row + 1
        return self._v
