"""A proof of optimisation theory, line by line, as something that a run can be held against.

A convergence proof is a chain of equations and inequalities. Some are algebra of the optimizer, some are assumptions
about the loss (convexity, smoothness). A :class:`Proof` states the chain as expressions over what a trace holds, so
that for one training run each line is true or false, with so much slack. The first line that is false is where the
proof breaks; the bound at the end stands beside what was observed.

Columns a line may read, one row per step of the run's longest stretch of consecutive steps:

* ``previous.NAME``, ``next.NAME``, ``reference.NAME``: the geometry of the model at this step, per pairing;
* the columns of the path table and of the steps under their own names;
* ``g_g`` ‖g_t‖², ``clip`` the clip factor (1 where none), ``u_loss`` and ``u_vector`` unit roundoffs, ``sigma_f`` (null
  where nothing was replayed), ``sums`` the relative error that a sum over the coordinates may have, ``begins`` whether
  training began with this step: the trace's first, after which the momentum is its gradient alone;
* the optimizer's flags, true where any group of parameters has it set;
* the proof's own constants.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal

import polars as pl

from tracer.errors import UsageError

Over = Literal["each step", "sum", "mean", "run"]
Relation = Literal["=", "<="]


@dataclass(frozen=True, eq=False)
class Need:
    """Something a proof or a line is stated for, that can be read off the run.

    Args:
        says: in words, as in "the learning rate is constant".
        holds: aggregates the rows to one truth value; null counts as false.
        optimizers: class names it is stated for, without their modules; empty for any.
        reference: the reference point it is stated for; empty for any.
    """

    says: str
    holds: pl.Expr | None = None
    optimizers: tuple[str, ...] = ()
    reference: str = ""


@dataclass(frozen=True, eq=False)
class Constant:
    """A number of the run that lines read by ``name``: ``value`` aggregates all rows, or those of the first half."""

    name: str
    value: pl.Expr
    says: str
    first_half: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Line:
    """``left`` ``relation`` ``right``.

    Args:
        name: short, unique in the proof.
        left, right: row by row; over "run" they aggregate the rows.
        uses: what makes it true: "algebra", "the optimizer", "convexity", "smoothness", …
        over: "each step": at every step beyond rounding. "sum": of the sums. "run": of two numbers of the run. "mean":
            a statement in expectation, of the weighted means, with the interval of batch means.
        says: the line in words.
        tolerance: what rounding can do to ``left − right``: row by row (each step, sum, mean), or one number (run).
        weight: over "mean": at least 0.
        margin: over "mean" and "=": one number; the line holds where the interval lies within ± margin.
        noise: over "run": standard error of ``left − right``, one number, where minibatches are drawn at random.
        second_half: tested on the second half of the steps, for lines with a constant of the first half.
        needs: of this line alone.
    """

    name: str
    left: pl.Expr
    right: pl.Expr
    relation: Relation = "<="
    uses: str
    over: Over = "each step"
    says: str = ""
    tolerance: pl.Expr = field(default_factory=lambda: pl.lit(0.0))
    weight: pl.Expr | None = None
    margin: pl.Expr | None = None
    noise: pl.Expr | None = None
    second_half: bool = False
    needs: tuple[Need, ...] = ()

    def parts(self) -> list[pl.Expr]:
        """Everything that must be there for the line to be judged."""
        parts = (self.left, self.right, self.tolerance, self.weight, self.margin)
        return [part for part in parts if part is not None]


@dataclass(frozen=True, eq=False, kw_only=True)
class Proof:
    """A chain of lines that ends in a bound.

    Args:
        name: a Python identifier.
        title, paper: for people.
        assumes: what the proof takes for granted, in words.
        lines: in the order of the argument.
        bounds: its conclusions, ``left`` what was observed and ``right`` the bound; they are no lines of the argument.
        needs: what the run must be for the proof to speak of it at all.
        constants: numbers the lines read, in the order in which they are computed.
        caveat: what a result does not say.

    Raises:
        UsageError: two lines have one name, or the name is no identifier.
    """

    name: str
    title: str
    lines: tuple[Line, ...]
    bounds: tuple[Line, ...]
    paper: str = ""
    assumes: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
    constants: tuple[Constant, ...] = ()
    caveat: str = ""

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise UsageError(
                f"Proof {self.name!r}: the name must be a Python identifier, for instance 'descent_lemma'."
            )
        names = [line.name for line in (*self.lines, *self.bounds)]
        if len(set(names)) < len(names) or not self.lines:
            raise UsageError(f"Proof {self.name}: it needs lines, and their names must differ; found {names}.")
        for line in (*self.lines, *self.bounds):
            if line.over == "mean" and line.relation == "=" and line.margin is None:
                raise UsageError(f"Proof {self.name}, line {line.name!r}: an equation of means needs margin=.")

    @property
    def fingerprint(self) -> str:
        """Hash of everything the table depends on: formulas, relations, constants and needs."""
        return hashlib.sha256(repr(_plain((VERSION, self))).encode()).hexdigest()[:16]


VERSION = 2
"""Raised when the rules that judge a line change, or what a column of its rows says: stored tables turn stale."""


def _plain(part: Any) -> Any:
    if isinstance(part, pl.Expr):
        return part.meta.serialize().hex()
    if isinstance(part, (tuple, list)):
        return tuple(_plain(each) for each in part)
    if isinstance(part, (Proof, Line, Need, Constant)):
        return tuple(_plain(value) for value in vars(part).values())
    return part
