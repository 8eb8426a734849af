"""The columns of the table ``replay``: what each means, its unit, and which command finds it.

They stand beside the pairs of the geometry: what was found at x_t, or along the step that made it, beside the pair
``previous`` of step t; what was found at a reference point beside the pair with it.
"""

import polars as pl

from analysis.units import Column, Units

_LOSS, _SLOPE, _DISTANCE2 = Units(loss=1), Units(loss=1), Units(distance=2)
_GRADIENT2, _PER_DISTANCE = Units(loss=2, distance=-2), Units(distance=-1)
_CURVATURE = Units(loss=1, distance=-2)


def _needs(of: str, options: str) -> str:
    """Why a column of the table ``replay`` is missing; RUN stands for the run's id."""
    return f"needs a replay of {of}: run `lemmata replay RUN {options}`"


_NO_PROFILE = _needs("the loss along the steps", "--profile 5")
_NO_BLOCK_GAPS = _needs("the tensors one by one", "--block-gaps every=5")
_NO_ALONG_GRADIENT = _needs("the loss along its gradient", "--along-gradient every=5")
_NO_FULL = _needs("the whole data set", "--full-batch every=5")
_NO_JENSEN = _needs("the mean points of windows", "--jensen 5")
_NO_CRITICAL = _needs("the loss along longer steps", "--critical every=5")
_NO_SHARPNESS = _needs("the Hessian", "--sharpness every=5")
_NO_ADAM_SHARPNESS = f"{_NO_SHARPNESS}; D must be known, from the recorded buffer or from all gradients since step 0"
_NO_DOUBLE = _needs("the steps in double precision", "--float64 every=1")
_NO_AT_REFERENCE = _needs("the gradients at reference points", "--references last,tail_mean --gradients")

REPLAY_COLUMNS: dict[str, Column] = {
    "midpoint_defect": Column("φ(½) − (φ(0) + φ(1))/2, φ(s) = f(x_{t−1} + s d_t, z_t)", _LOSS, "replay", _NO_PROFILE),
    "largest_defect": Column("largest φ(s) − (1−s) φ(0) − s φ(1) at 0 < s < 1", _LOSS, "replay", _NO_PROFILE),
    "profile_change": Column("φ(1) − φ(0), both replayed", _LOSS, "replay", _NO_PROFILE),
    "profile_loss": Column("largest |φ(s)| at 0 ≤ s ≤ 1", _LOSS, "replay", _NO_PROFILE),
    "path_slope": Column("∫ ⟨∇f(x_{t−1} + s d_t, z_t), d_t⟩ ds, Gauss quadrature", _SLOPE, "replay", _NO_PROFILE),
    "curvature_high": Column("largest (φ'(s) − φ'(0)) / (s ‖d‖²), 0 < s ≤ 1", _CURVATURE, "replay", _NO_PROFILE),
    "curvature_low": Column("smallest (φ'(s) − φ'(0)) / (s ‖d‖²), 0 < s ≤ 1", _CURVATURE, "replay", _NO_PROFILE),
    "block_gap": Column(
        "f(x') − f(x_{t−1}) − ⟨∇f(x'), x' − x_{t−1}⟩, x' the point x_{t−1} with this tensor moved alone; of the model "
        "the largest of all tensors",
        _LOSS,
        "replay",
        _NO_BLOCK_GAPS,
    ),
    "block_loss": Column("the larger of |f(x')| and |f(x_{t−1})|", _LOSS, "replay", _NO_BLOCK_GAPS),
    "smoothness_along_gradient": Column(
        "largest ‖∇f(x_t − η g) − g‖ / (η ‖g‖), g = ∇f(x_t, z_t), η = ¼, ½, 1, 2 and 4 times lr",
        _CURVATURE,
        "replay",
        _NO_ALONG_GRADIENT,
    ),
    "shortest_rate": Column("the smallest η there", Units(loss=-1, distance=2), "replay", _NO_ALONG_GRADIENT),
    "full_loss": Column("F(x_t), the loss of the whole data set", _LOSS, "replay", _NO_FULL),
    "full_before": Column("F at the point that was replayed before", _LOSS, "replay", _NO_FULL),
    "full_after": Column("F at the point replayed next, as many steps ahead", _LOSS, "replay", _NO_FULL),
    "full_least": Column("the smallest F that was replayed", _LOSS, "replay", _NO_FULL),
    "full_gg": Column("‖∇F(x_t)‖²", _GRADIENT2, "replay", _NO_FULL),
    "full_gg_before": Column("‖∇F‖² at the point that was replayed before", _GRADIENT2, "replay", _NO_FULL),
    "full_ahead": Column("⟨∇F(x_t), x_{t+1} − x_t⟩", _SLOPE, "replay", _NO_FULL),
    "jensen_full": Column("F(x̄) − mean F(x_s), over the window that ends here", _LOSS, "replay", _NO_JENSEN),
    "jensen_minibatch": Column("mean f(x̄, z_s) − mean f(x_s, z_s), the same window", _LOSS, "replay", _NO_JENSEN),
    "jensen_loss": Column("largest mean loss that went into the two", _LOSS, "replay", _NO_JENSEN),
    "sharpness_full": Column("λ_max of the Hessian of F at x_t", _CURVATURE, "replay", _NO_SHARPNESS),
    "sharpness_minibatch": Column("λ_max of the Hessian of f(·, z_t) at x_t", _CURVATURE, "replay", _NO_SHARPNESS),
    "sharpness_full_off": Column("residual of the Lanczos method there", _CURVATURE, "replay", _NO_SHARPNESS),
    "sharpness_minibatch_off": Column("residual of the Lanczos method there", _CURVATURE, "replay", _NO_SHARPNESS),
    "adam_sharpness_full": Column(
        "λ_max of D^-½ H D^-½, H of F, D = √v̂ + ε of the step that leaves x_t",
        _PER_DISTANCE,
        "replay",
        _NO_ADAM_SHARPNESS,
    ),
    "adam_sharpness_minibatch": Column("the same with H of f(·, z_t)", _PER_DISTANCE, "replay", _NO_ADAM_SHARPNESS),
    "adam_sharpness_full_off": Column(
        "residual of the Lanczos method there", _PER_DISTANCE, "replay", _NO_ADAM_SHARPNESS
    ),
    "critical_full": Column(
        "2 / r_c, r_c the rate beyond which F rises along the step", _CURVATURE, "replay", _NO_CRITICAL
    ),
    "critical_minibatch": Column("the same of f(·, z_t)", _CURVATURE, "replay", _NO_CRITICAL),
    "critical_full_off": Column("half the width of the bracket of critical_full", _CURVATURE, "replay", _NO_CRITICAL),
    "critical_minibatch_off": Column("half the width of the bracket there", _CURVATURE, "replay", _NO_CRITICAL),
    "double_change": Column("f(x_t, z_t) − f(x_{t−1}, z_t), computed in double precision", _LOSS, "replay", _NO_DOUBLE),
    "double_loss": Column("the larger of their absolute values", _LOSS, "replay", _NO_DOUBLE),
    "double_slope": Column("⟨∇f(x_t, z_t), d_t⟩, in double precision", _SLOPE, "replay", _NO_DOUBLE),
    "double_slope_before": Column("⟨∇f(x_{t−1}, z_t), d_t⟩, in double precision", _SLOPE, "replay", _NO_DOUBLE),
    "double_room": Column("‖d‖ times the larger norm of the two gradients", _SLOPE, "replay", _NO_DOUBLE),
    "gy_step": Column("⟨∇f(y, z_t), x_t − x_{t−1}⟩, y a reference point", _SLOPE, "replay", _NO_AT_REFERENCE),
    "made_made": Column(
        "‖x_t − x_{t−1}‖², beside a pair with a reference point", _DISTANCE2, "replay", _NO_AT_REFERENCE
    ),
}
REPLAY_LOSSES = (
    "midpoint_defect",
    "largest_defect",
    "profile_change",
    "profile_loss",
    "full_loss",
    "full_before",
    "full_after",
    "full_least",
    "jensen_full",
    "jensen_minibatch",
    "jensen_loss",
    "double_change",
    "double_loss",
)
"""Those that belong to the whole model."""

midpoint_defect, largest_defect = pl.col("midpoint_defect"), pl.col("largest_defect")
profile_change, profile_loss, path_slope = pl.col("profile_change"), pl.col("profile_loss"), pl.col("path_slope")
curvature_high, curvature_low = pl.col("curvature_high"), pl.col("curvature_low")
block_gap, block_loss = pl.col("block_gap"), pl.col("block_loss")
smoothness_along_gradient, shortest_rate = pl.col("smoothness_along_gradient"), pl.col("shortest_rate")
full_loss, full_before, full_after = pl.col("full_loss"), pl.col("full_before"), pl.col("full_after")
full_least, full_gg, full_gg_before = pl.col("full_least"), pl.col("full_gg"), pl.col("full_gg_before")
jensen_full, jensen_minibatch, jensen_loss = pl.col("jensen_full"), pl.col("jensen_minibatch"), pl.col("jensen_loss")
sharpness_full, sharpness_minibatch = pl.col("sharpness_full"), pl.col("sharpness_minibatch")
adam_sharpness_full, adam_sharpness_minibatch = pl.col("adam_sharpness_full"), pl.col("adam_sharpness_minibatch")
critical_full, critical_minibatch = pl.col("critical_full"), pl.col("critical_minibatch")
double_change, double_loss = pl.col("double_change"), pl.col("double_loss")
double_slope, double_slope_before = pl.col("double_slope"), pl.col("double_slope_before")
double_room = pl.col("double_room")
gy_step, made_made = pl.col("gy_step"), pl.col("made_made")
