"""``docs/benchmarks.md``: how to read it, the machine, a table per benchmark."""

from collections.abc import Mapping
from itertools import groupby

from tests.benchmarks.measure import Session, markdown_table

INTRODUCTION = """\
# Benchmarks

Made by `make bench`; the same numbers stand in `benchmarks.jsonl`, one JSON object a line. Do not edit this page.

**How to read it.** Seconds depend on the machine and on who else uses it, so nearly every figure is a ratio: to the
same training without a tracer, to a bare `os.write` or `read()` of the same bytes, to one pass over the same memory, or
to what people do without this project. The contenders run in one process and take turns, a short turn each, in a new
order every round. The ratio is formed within a round; the table has its median over `n` rounds, and the quartiles. Wide
quartiles mean a busy machine: only differences much wider than they are mean anything then. Figures of a single call
are over steps, and a figure with n = 1 is made of medians or of sums over all rounds.

- **capture**: training with x and g of every step recorded, over training alone; a turn ends when the writer has
  nothing left to do. *Spare core*: torch on one thread, and the writer may use another core, if nobody else does. *No
  spare core*: the whole process is confined to one. *Processor time* is the same ratio without the waiting, for other
  processes or for the disk. The look-back probe must evaluate every minibatch once more; its price, the difference
  between recording with and without it, is compared with the price of doing just that. *All turns together* includes
  the turns in which a chunk was sealed and synced, which a median hides. The peers neither hash nor sync, and a kill
  may leave half a row. *A copy in memory* writes no file at all: it is the least a recorder can cost, and its p99 / p50
  is what this machine does to any short call.
- **sealing**: the store alone, without torch: hash, write, commit and seal over a bare `os.write` of the same bytes,
  both synced at the end of a chunk; step by step, and several steps at a time, as the writer takes them when the disk
  is slower than training. *Processor time* is that of the writing thread. *Blocked* is the time in which a
  thread that only counts waits for the interpreter while another writes as fast as it can; on a busy machine the
  writer cannot write fast, and the share comes out too small.
- **reading**: warm files. *Verified* hashes every row, and *reduced* gives all tables of the geometry, on as many cores
  as there are; the bare `read()` goes through a buffer that stays in the cache. The *kernel* is on one thread, as the
  read of the memory is: 21 products of each step and block without references, three more for each reference. The loop
  over torch files computes, for the model alone, the eight products of each pair, or the same numbers as the tables:
  these, what the path has, and three for each reference, whose points it finds in a pass before. *The pairs alone* are
  not what the product does: they show what its path costs. The results agree to
  1e-9, and to 1e-6 where a reference point was rounded otherwise.
- **tiny steps**: 31 parameters, so that only the fixed cost of a step is left: microseconds, on this machine. In the
  profile, on one core, `forget` is where the training thread stands while the writer thread has the interpreter.
- **replay**: recorded minibatches asked again at a reference point, on one thread: point, gradient and minibatch read
  from warm files and verified, the model moved, loss and gradient evaluated, the products of the pair formed. Compared
  with a bare loop over the same number of minibatches in memory that evaluates just those.
- **metrics**: seconds, on this machine, from the tables on disk to every metric and verdict, and for a single one; the
  peer, a plain scan, only adds up every column of the same tables. The tables are drawn at random.
"""

NOT_MEASURED = """\
## Not measured

- **SageMaker Debugger** (`smdebug` 1.0.34): `pip install --dry-run` finds versions beside torch 2.13, but not beside
  Dagster: that needs protobuf ≥ 4 on Python 3.11, and the debugger's generated code stops at 3.20. In an environment of
  its own it needs `psutil`, which it does not declare, and then fails at the first step it saves: it calls
  `ndarray.tostring`, which NumPy 2.4 does not have.
- **Cockpit** (`cockpit-for-pytorch` 1.0.2): `pip install --dry-run` finds versions that go with torch 2.13. Importing
  it fails (`No module named 'pkg_resources'`) until setuptools is taken back below 81. It computes statistics of
  gradients through BackPACK and keeps neither x nor g, so it is no peer in a table of recorders, and was not timed.
- Transfer from a GPU: there was none. `python -m tests.test_cuda` tests it and prints the capture table of a ResNet-18
  and of a model of GPT-2's size.
- Power loss, and files that are not in the page cache.
"""


def page(session: Session, about: Mapping[str, str]) -> str:
    """The page as Markdown."""
    parts = [INTRODUCTION]
    if session.quick:
        parts.append("**A quick run: it shows that the benchmarks work. Its numbers mean nothing.**\n")
    parts.append("## Machine\n\n" + "".join(f"- {name}: {text}\n" for name, text in about.items()))
    parts += [f"{note}\n" for note in session.notes]
    judged = [figure for figure in session.figures if figure.target is not None]
    if judged:
        missed = sum(not figure.met for figure in judged)
        parts.append(f"{len(judged) - missed} of {len(judged)} targets are met in this run, {missed} missed.\n")
    for name, figures in groupby(session.figures, lambda figure: figure.benchmark):
        parts.append(f"## {name.capitalize()}\n\n{markdown_table(figures)}")
    parts += [f"## {title}\n\n```text\n{text}\n```\n" for title, text in session.listings]
    parts.append(NOT_MEASURED)
    return "\n".join(parts)
