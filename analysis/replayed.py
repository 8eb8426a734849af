"""What was replayed of a run, as lazy tables by step. A model evaluated it elsewhere; here are files and formulas.

Columns are those that :mod:`tracer.replay` wrote, and what follows from them. A table that was not replayed is empty.
"""

from pathlib import Path

import polars as pl

from analysis.columns import MODEL
from tracer.errors import FormatError
from tracer.store.replays import Index, Results

_TYPES = {"step": pl.Int64, "last_step": pl.Int64, "points": pl.Int64, "iterations": pl.Int64, "converged": pl.Boolean}
_TYPES |= {"evaluations": pl.Int64, **dict.fromkeys(("pairing", "block", "objective", "metric"), pl.String)}
_COLUMNS = {
    "repeat": "step loss replayed g_g slip_slip",
    "reference": "step pairing block loss_y gy_d dg_d dg_dg gy_gy gx_gy dg_norms gy_step",
    "profile": "step s weight block loss slope d_d",
    "block_gaps": "step block loss_x loss_y gx_d",
    "float64": "step loss_x loss_y gx_d gy_d room",
    "along_gradient": "step rate loss_x loss dg_dg g_g",
    "jensen": "step last_step objective points at_mean mean",
    "full_batch": "step loss g_g g_ahead",
    "critical": "step objective rate_low rate_high critical_sharpness evaluations",
    "sharpness": "step objective metric eigenvalue residual iterations converged",
}


class Replayed:
    """The results of all replays of one run.

    Args:
        directory: of the run's tables.
        digest: of the trace that they must be of; any unless given.

    Raises:
        FormatError: the index is damaged, or the trace has changed since: reference points have moved.
    """

    def __init__(self, directory: Path, digest: str | None = None) -> None:
        self._results = Results(directory)
        self.index: Index | None = self._results.index()
        if self.index is not None and digest is not None and self.index.digest != digest:
            raise FormatError(
                f"{self._results.directory}: replayed when the run held other steps ({self.index.digest:.12}…, now "
                f"{digest:.12}…). Replay it again: lemmata replay {self.index.run_id}"
            )

    @property
    def noise(self) -> float | None:
        """σ_f: root mean squared difference of replayed and recorded losses, in loss; None where nothing was replayed.

        Zero where every loss came back bit for bit.
        """
        found = None if self.index is None else self.index.noise.get("sigma")
        return None if found is None else float(found)

    @property
    def alike(self) -> bool:
        """Whether replayed losses are the recorded ones up to rounding: then their noise is that of recorded ones."""
        return self.index is not None and bool(self.index.noise.get("alike"))

    @property
    def tables(self) -> dict[str, bool]:
        """Names of the tables there are, and whether each is complete."""
        return {} if self.index is None else {n: bool(entry["complete"]) for n, entry in self.index.tables.items()}

    @property
    def directory(self) -> Path:
        """Where the results lie."""
        return self._results.directory

    @property
    def content(self) -> str:
        """Stands for all results: equal texts, equal numbers. Empty where nothing was replayed."""
        return "" if self.index is None else self._results.content(self.index)

    def rows(self, name: str) -> int:
        """Rows of a table that are sealed."""
        return 0 if self.index is None else self._results.read(self.index.tables[name]["fingerprint"]).num_rows

    def written(self, name: str) -> float | None:
        """When the last part of a table was written, as its file says: seconds since 1970."""
        return None if self.index is None else self._results.written(self.index.tables[name]["fingerprint"])

    def losses(self) -> pl.LazyFrame:
        """Recorded and replayed f(x_t, z_t), with ‖g_t‖² and ‖replayed g − g_t‖²: step loss replayed g_g slip_slip."""
        return self._read("repeat")

    def references(self, complete: bool = False) -> pl.LazyFrame:
        """Pairs with reference points: pairing step block, columns of the geometry, and gy_step = ⟨∇f(y, z_t), d_t⟩.

        The last is the update correlation at a reference point: d_t = x_t − x_{t−1} does not depend on z_t.
        ``complete``: only of references that were replayed to the end.
        """
        names = [name for name, whole in self.tables.items() if name.startswith("reference:") and whole >= complete]
        return pl.concat([self._empty("reference"), *(self._read(name, "reference") for name in names)])

    def profile(self) -> pl.LazyFrame:
        """φ(s) = f(x_{t−1} + s d_t, z_t) and φ'(s): step s weight loss slope d_d; weight where s is a Gauss node."""
        return self._read("profile").filter(block=MODEL).drop("block")

    def segments(self) -> pl.LazyFrame:
        """Each step as the profile along it shows, a row per step.

        change φ(1) − φ(0); integral of φ' by Gauss quadrature; residual = change − integral (zero for a gradient of
        this loss, up to quadrature; a kink leaves O(1/nodes)); midpoint_defect φ(½) − (φ(0) + φ(1))/2 and
        largest_defect, the largest φ(s) − (1−s) φ(0) − s φ(1) inside (≤ 0 where convex); profile_loss, the largest
        |φ(s)| there; curvature_high and
        curvature_low, the extremes over s in (0, 1] of (φ'(s) − φ'(0)) / (s ‖d‖²) (Mishkin et al. 2024).
        """
        at = {s: (pl.col("loss").filter(s=s).first(), pl.col("slope").filter(s=s).first()) for s in (0.0, 0.5, 1.0)}
        (start, slope), (half, _), (end, _) = at.values()
        s, inside, beyond = pl.col("s"), (pl.col("s") > 0) & (pl.col("s") < 1), (pl.col("s") > 0) & (pl.col("s") <= 1)
        chord = (1 - s) * start + s * end
        rise = ((pl.col("slope") - slope) / (s * pl.col("d_d"))).filter(beyond)
        integral = (pl.col("weight") * pl.col("slope")).filter(pl.col("weight").is_not_null()).sum()
        nodes = pl.col("weight").count()
        return (
            self.profile()
            .group_by("step", maintain_order=True)
            .agg(
                change=end - start,
                integral=pl.when(nodes > 0).then(integral),
                midpoint_defect=half - (start + end) / 2,
                largest_defect=(pl.col("loss") - chord).filter(inside).max(),
                profile_loss=pl.col("loss").filter((s >= 0) & (s <= 1)).abs().max(),
                curvature_high=rise.max(),
                curvature_low=rise.min(),
                d_d=pl.col("d_d").first(),
            )
            .with_columns(residual=pl.col("change") - pl.col("integral"))
        )

    def allocation(self) -> pl.LazyFrame:
        """Loss change allocation (Lan et al. 2019), ∫ ⟨∇_k f, d_k⟩ ds: step block allocation; blocks add up.

        Of the model it is the integral that equals φ(1) − φ(0).
        """
        nodes = self._read("profile").filter(pl.col("weight").is_not_null())
        return nodes.group_by("step", "block", maintain_order=True).agg(
            allocation=(pl.col("weight") * pl.col("slope")).sum()
        )

    def block_gaps(self) -> pl.LazyFrame:
        """One tensor moved alone: step block gap loss_x loss_y gx_d; gap = loss_x − loss_y − gx_d, ≤ 0 where convex."""
        return self._read("block_gaps").with_columns(gap=pl.col("loss_x") - pl.col("loss_y") - pl.col("gx_d"))

    def in_double(self) -> pl.LazyFrame:
        """Losses and slopes along each step in double precision: step loss_x loss_y gx_d gy_d room."""
        return self._read("float64")

    def along_gradient(self) -> pl.LazyFrame:
        """At x − η g, g = ∇f(x, z_t), for several η = rate: step rate loss_x loss dg_dg g_g slope.

        ``loss_x`` is f(x, z_t), ``loss`` that at x − η g, ``dg_dg`` the squared change of the gradient, and ``slope``
        = ‖change‖ / (η ‖g‖).
        """
        slope = (pl.col("dg_dg") / pl.col("g_g")).sqrt() / pl.col("rate")
        return self._read("along_gradient").with_columns(slope=slope)

    def jensen(self) -> pl.LazyFrame:
        """Loss at the mean point less mean loss, per window: step last_step objective points gap; ≤ 0 where convex."""
        return self._read("jensen").with_columns(gap=pl.col("at_mean") - pl.col("mean"))

    def full_batch(self) -> pl.LazyFrame:
        """F(x_t), ‖∇F(x_t)‖², ⟨∇F(x_t), x_{t+1} − x_t⟩: step loss g_g g_ahead."""
        return self._read("full_batch")

    def sharpness(self) -> pl.LazyFrame:
        """Largest Hessian eigenvalue: step objective metric eigenvalue residual iterations converged.

        ``objective`` is ``minibatch`` (z_t) or ``full`` (F), ``metric`` ``euclidean`` or ``adam`` (D^-1/2 H D^-1/2).
        """
        return self._read("sharpness")

    def critical(self) -> pl.LazyFrame:
        """Critical sharpness 2 / r_c: step objective rate_low rate_high critical_sharpness evaluations."""
        return self._read("critical")

    def _read(self, name: str, kind: str = "") -> pl.LazyFrame:
        entry = None if self.index is None else self.index.tables.get(name)
        empty = self._empty(kind or name)
        table = None if entry is None else self._results.read(entry["fingerprint"])
        if table is None or not table.num_rows:
            return empty
        return pl.concat([empty, pl.DataFrame(pl.from_arrow(table)).lazy()])

    def _empty(self, name: str) -> pl.LazyFrame:
        return pl.LazyFrame(schema={c: _TYPES.get(c, pl.Float64) for c in _COLUMNS[name].split()})
