"""The columns a formula may read: what each means, its unit, and what it says when it is missing.

A pair has two points ``x`` and ``y`` on one minibatch, ``d = x − y``, gradients ``gx`` and ``gy`` and ``dg = gx − gy``.
The column ``gx_d`` is the inner product ⟨gx, d⟩, ``dg_dg`` is ‖gx − gy‖², and so on.
"""

import polars as pl

from analysis.columns_of_replays import REPLAY_COLUMNS, REPLAY_LOSSES
from analysis.units import Column as Column
from analysis.units import Units as Units

MODEL = "model"  # the block that stands for all parameters together


_LOSS, _DISTANCE2, _SLOPE = Units(loss=1), Units(distance=2), Units(loss=1)
_GRADIENT2 = Units(loss=2, distance=-2)
_DISTANCE, _GRADIENT = Units(distance=1), Units(loss=1, distance=-1)
_D_DISTANCE2, _D_GRADIENT2 = Units(loss=1, distance=1), Units(loss=1, distance=-1)  # D has the unit of a gradient
NO_LOSS = "no loss was recorded; hand the loss to the tracer"
_NO_PROBE = 'no look-back probe was recorded; record with probes=["look_back"]'
NO_LOOK_AHEAD = 'no look-ahead probe was recorded; record with probes=["look_ahead"]'
_NO_HALVES = 'no half-batch gradients were recorded; record with probes=["half_batches"]'
_NO_SCALE = "no random scale was recorded; hand random_scale= to tracer.loss"
_NO_REFERENCE = "it is known for pairs with a reference point only"
_NO_NORM = f"{_NO_REFERENCE}; geometry computed before there was this column lacks it: run `lemmata rerun --stale`"
_NO_DYNAMICS = "the optimizer's formula is not known here, or the trace does not begin with its first step"
_NO_ADAM = "the optimizer is not Adam or AdamW, or the trace does not begin with its first step"
_NO_CURVE = "fewer than 20 losses in the first half, or their learning rates were not recorded"
_NO_SGD = "the optimizer is not SGD, or the parameter groups do not share one learning rate and momentum"
_NO_RATE = "the parameter groups do not share one learning rate, or none was recorded"

COLUMNS: dict[str, Column] = {
    "loss_x": Column("f(x), the loss at x (whole model only)", _LOSS, "geometry", NO_LOSS),
    "loss_y": Column("f(y), the loss at y on the same minibatch (whole model only)", _LOSS, "geometry", _NO_PROBE),
    "d_d": Column("‖x − y‖²", _DISTANCE2, "geometry"),
    "gx_d": Column("⟨∇f(x), x − y⟩", _SLOPE, "geometry"),
    "gy_d": Column("⟨∇f(y), x − y⟩", _SLOPE, "geometry", _NO_PROBE),
    "dg_d": Column("⟨∇f(x) − ∇f(y), x − y⟩, from the difference vector", _SLOPE, "geometry", _NO_PROBE),
    "dg_dg": Column("‖∇f(x) − ∇f(y)‖², from the difference vector", _GRADIENT2, "geometry", _NO_PROBE),
    "gx_gx": Column("‖∇f(x)‖²", _GRADIENT2, "geometry"),
    "gy_gy": Column("‖∇f(y)‖²", _GRADIENT2, "geometry", _NO_PROBE),
    "gx_gy": Column("⟨∇f(x), ∇f(y)⟩", _GRADIENT2, "geometry", _NO_PROBE),
    "d_norms": Column("Σ_k ‖d_k‖ over the blocks k", _DISTANCE, "geometry"),
    "dg_norms": Column("Σ_k ‖∇f(x)_k − ∇f(y)_k‖ over the blocks k", _GRADIENT, "geometry", _NO_PROBE),
    "d_ahead": Column("⟨x − y, x_{t+1} − x_t⟩, for reference points", _DISTANCE2, "geometry", _NO_REFERENCE),
    "y_y": Column("‖y‖², for reference points", _DISTANCE2, "geometry", _NO_NORM),
    "x_x": Column("‖x_t‖²", _DISTANCE2, "path"),
    "g_x": Column("⟨∇f(x_t), x_t⟩", _SLOPE, "path"),
    "x_d": Column("⟨x_t, x_t − x_{t−1}⟩", _DISTANCE2, "path"),
    "g_gprev": Column("⟨g_t, g_{t−1}⟩, on different minibatches", _GRADIENT2, "path"),
    "d_dprev": Column("⟨d_t, d_{t−1}⟩, of consecutive steps", _DISTANCE2, "path"),
    "gprev_gprev": Column("‖g_{t−1}‖²", _GRADIENT2, "path"),
    "dprev_dprev": Column("‖d_{t−1}‖²", _DISTANCE2, "path"),
    "ga_gb": Column("⟨g_a, g_b⟩ of the two halves of z_t", _GRADIENT2, "path", _NO_HALVES),
    "ga_ga": Column("‖g_a‖², one half of z_t", _GRADIENT2, "path", _NO_HALVES),
    "gb_gb": Column("‖g_b‖², the other half of z_t", _GRADIENT2, "path", _NO_HALVES),
    "d_max": Column("‖x_t − x_{t−1}‖_∞", _DISTANCE, "path"),
    "g_sum": Column("‖g_t‖_1", _GRADIENT, "path"),
    "dg_sum": Column("‖g_t − ∇f(x_{t−1}, z_t)‖_1", _GRADIENT, "path", _NO_PROBE),
    "gsum_gsum": Column("‖Σ_{s≤t} g_s‖², since the first step or the last gap", _GRADIENT2, "path"),
    "gmove": Column("Σ_{s≤t} ⟨g_s, x_s − x_0⟩, x_0 the first point or the first after the last gap", _SLOPE, "path"),
    "wsum_wsum": Column("‖Σ g_s‖² over this window of 100 steps so far", _GRADIENT2, "path"),
    "wcount": Column("how many gradients wsum_wsum sums", Units(), "path"),
    "wmove_wmove": Column("‖x_t − x_s‖², s the first step of this window of 100 steps", _DISTANCE2, "path"),
    "m_m": Column("‖m_t‖², the optimizer's first moment after the update", _GRADIENT2, "path", _NO_DYNAMICS),
    "g_m": Column("⟨g_t, m_t⟩", _GRADIENT2, "path", _NO_DYNAMICS),
    "g_mprev": Column("⟨g_t, m_{t−1}⟩, fresh", _GRADIENT2, "path", _NO_DYNAMICS),
    "step_step": Column("‖x_{t+1} − x_t‖², the step that leaves x_t", _DISTANCE2, "path"),
    "slip_slip": Column("‖(x_{t+1} − x_t) − the optimizer's formula‖²", _DISTANCE2, "path", _NO_DYNAMICS),
    "slip_room": Column(
        "how far rounding alone may take x_{t+1} from the formula, squared", _DISTANCE2, "path", _NO_DYNAMICS
    ),
    "dd_adam": Column("Σ D_i d_i², D = √v̂ + ε of the step that made x_t", _D_DISTANCE2, "path", _NO_ADAM),
    "qq_adam": Column("Σ (g_t − ∇f(x_{t−1}, z_t))_i² / D_i", _D_GRADIENT2, "path", _NO_ADAM),
    "mhat_e": Column("⟨m̂_t, x_t − x_T⟩, m̂ the first moment without its bias", _SLOPE, "path", _NO_ADAM),
    "decay_e": Column("Σ λ D_i x_i (x_t − x_T)_i, λ the decoupled weight decay", _SLOPE, "path", _NO_ADAM),
    "ee_adam": Column("Σ D_i (x_t − x_T)_i², D = √v̂ + ε of the step that leaves x_t", _D_DISTANCE2, "path", _NO_ADAM),
    "ee_ahead": Column("Σ D_i (x_{t+1} − x_T)_i², the same D", _D_DISTANCE2, "path", _NO_ADAM),
    "slip_e": Column("Σ D_i s_i (x_t − x_T)_i, s the slip, the same D", _D_DISTANCE2, "path", _NO_ADAM),
    "lr": Column("learning rate of the step that leaves x_t", Units(loss=-1, distance=2), "steps", _NO_RATE),
    "lr_previous": Column("learning rate of the step that made x_t", Units(loss=-1, distance=2), "steps", _NO_RATE),
    "lr_d": Column("learning rate of the step x − y of the pair", Units(loss=-1, distance=2), "steps", _NO_RATE),
    "noise_rate": Column(
        "what SGD's step that leaves x_t puts on the noise of g_t: lr (1 − dampening), with Nesterov's momentum b "
        "lr (1 + b), times the clip factor and the random factor",
        Units(loss=-1, distance=2),
        "steps",
        _NO_SGD,
    ),
    "noise_rate_d": Column("noise_rate of the step x − y of the pair", Units(loss=-1, distance=2), "steps", _NO_SGD),
    "scale_d": Column("random factor on the step x − y of the pair", Units(), "steps", _NO_SCALE),
    "scale_least": Column("smallest random factor of the run", Units(), "steps", _NO_SCALE),
    "scale_most": Column("largest random factor of the run", Units(), "steps", _NO_SCALE),
    "loss_change_d": Column(
        "change of the loss over the step x − y on the minibatch that made that step", _LOSS, "steps", NO_LOOK_AHEAD
    ),
    "loss": Column("f(x_t), as the step recorded it", _LOSS, "steps", NO_LOSS),
    "loss_previous": Column("f(x_{t−1}, z_t), as the look-back probe recorded it", _LOSS, "steps", _NO_PROBE),
    "loss_next": Column("f(x_{t+1}, z_t), as the look-ahead probe recorded it", _LOSS, "steps", NO_LOOK_AHEAD),
    "loss_start": Column("mean of the first 10 recorded losses", _LOSS, "steps", NO_LOSS),
    "rate_distance": Column(
        "S1 = 1/(2 Σ_{s≤t} lr_s), of the bound of a convex loss; steps that were not recorded count at the rate before",
        Units(loss=1, distance=-2),
        "steps",
        _NO_RATE,
    ),
    "rate_noise": Column(
        "S2, the rest of that bound for gradients of norm 1", Units(loss=-1, distance=2), "steps", _NO_RATE
    ),
    "rate_curve": Column(
        "L∞ + a S1 + b S2, a and b at least 0, fitted to the losses of the first half", _LOSS, "steps", _NO_CURVE
    ),
    "rate_agreement": Column(
        "product of the standardised ranks of f(x_t) and of rate_curve among the run's steps",
        Units(),
        "steps",
        f"the fitted curve does not fall, or {_NO_CURVE}",
    ),
    "fitted_distance": Column("√a of rate_curve, the D of the bound", _DISTANCE, "steps", _NO_CURVE),
    "fitted_gradient": Column("√b of rate_curve, the G of the bound", _GRADIENT, "steps", _NO_CURVE),
    "loss_moved": Column(
        "variance of the second half's losses less the mean of loss_spread, at its steps",
        Units(loss=2),
        "steps",
        "the loss of the second half moves no more than minibatches differ, or too few were recorded",
    ),
    "loss_spread": Column("(f(x_t, z_t) − f(x_{t−1}, z_{t−1}))²/2", Units(loss=2), "steps", NO_LOSS),
    "unbroken": Column("1 up to the first gap in the recorded steps", Units(), "steps", "the step follows a gap"),
    "epoch": Column("epoch of the step, as the loop said", Units(), "steps", "no epoch was recorded"),
    "clip_factor": Column("the factor clipping put on g_t (1: not clipped)", Units(), "steps"),
    "coupled_decay": Column(
        "weight decay that is added to the gradient, so that steps descend f + λ‖x‖²/2",
        Units(loss=1, distance=-2),
        "steps",
        "weight decay is not recorded, or decoupled from the gradient",
    ),
    "random_scale": Column("the random factor on the step that leaves x_t", Units(), "steps"),
    "nesterov": Column(
        "1 where the momentum is Nesterov's, else 0", Units(), "facts", "only some parameter groups have it"
    ),
    "sigma_f": Column(
        "σ_f, how far replayed losses are from the recorded ones", _LOSS, "facts", "nothing was replayed"
    ),
    "u_loss": Column("unit roundoff of the recorded loss", Units(), "facts"),
    "u_vector": Column("unit roundoff of the recorded vectors", Units(), "facts"),
    **REPLAY_COLUMNS,
}
LOSSES = frozenset(
    {
        *("loss_x", "loss_y", "loss", "loss_previous", "loss_next", "loss_change_d", "loss_start"),
        *("rate_curve", "rate_agreement", "loss_moved", "loss_spread"),
        *REPLAY_LOSSES,
    }
)
"""Columns that belong to the whole model: a formula that reads one is not applicable on a block."""

GEOMETRY = tuple(name for name, column in COLUMNS.items() if column.table == "geometry")
PATH = tuple(name for name, column in COLUMNS.items() if column.table == "path")
REPLAY = tuple(name for name, column in COLUMNS.items() if column.table == "replay")
REFINING = frozenset({"sigma_f"})
"""Columns a formula can do without: where they are null, the rest of it decides."""
AT_REFERENCE = frozenset({"loss_y", "gy_d", "gy_gy", "dg_d", "dg_dg", "gx_gy", "dg_norms"})
"""Columns of the geometry that no probe gives at a reference point: a replay does."""

loss_x, loss_y = pl.col("loss_x"), pl.col("loss_y")
d_d, gx_d, gy_d, dg_d, dg_dg = pl.col("d_d"), pl.col("gx_d"), pl.col("gy_d"), pl.col("dg_d"), pl.col("dg_dg")
gx_gx, gy_gy, gx_gy = pl.col("gx_gx"), pl.col("gy_gy"), pl.col("gx_gy")
x_x, g_x, x_d, g_gprev, d_dprev = pl.col("x_x"), pl.col("g_x"), pl.col("x_d"), pl.col("g_gprev"), pl.col("d_dprev")
gprev_gprev, dprev_dprev = pl.col("gprev_gprev"), pl.col("dprev_dprev")
lr, lr_previous = pl.col("lr"), pl.col("lr_previous")
noise_rate, noise_rate_d = pl.col("noise_rate"), pl.col("noise_rate_d")
d_norms, dg_norms, d_ahead = pl.col("d_norms"), pl.col("dg_norms"), pl.col("d_ahead")
y_y = pl.col("y_y")
ga_gb, ga_ga, gb_gb = pl.col("ga_gb"), pl.col("ga_ga"), pl.col("gb_gb")
d_max, g_sum, dg_sum = pl.col("d_max"), pl.col("g_sum"), pl.col("dg_sum")
gsum_gsum, gmove = pl.col("gsum_gsum"), pl.col("gmove")
wsum_wsum, wcount, wmove_wmove = pl.col("wsum_wsum"), pl.col("wcount"), pl.col("wmove_wmove")
m_m, g_m, g_mprev = pl.col("m_m"), pl.col("g_m"), pl.col("g_mprev")
step_step, slip_slip = pl.col("step_step"), pl.col("slip_slip")
dd_adam, qq_adam = pl.col("dd_adam"), pl.col("qq_adam")
scale_least, scale_most = pl.col("scale_least"), pl.col("scale_most")
lr_d, scale_d, loss_change_d = pl.col("lr_d"), pl.col("scale_d"), pl.col("loss_change_d")
slip_room, slip_e = pl.col("slip_room"), pl.col("slip_e")
mhat_e, decay_e, ee_adam, ee_ahead = pl.col("mhat_e"), pl.col("decay_e"), pl.col("ee_adam"), pl.col("ee_ahead")
loss, rate_distance, rate_noise = pl.col("loss"), pl.col("rate_distance"), pl.col("rate_noise")
rate_curve, loss_moved, loss_spread = pl.col("rate_curve"), pl.col("loss_moved"), pl.col("loss_spread")
rate_agreement, fitted_distance = pl.col("rate_agreement"), pl.col("fitted_distance")
fitted_gradient = pl.col("fitted_gradient")
unbroken = pl.col("unbroken")
coupled_decay, loss_start = pl.col("coupled_decay"), pl.col("loss_start")
clip_factor, random_scale = pl.col("clip_factor"), pl.col("random_scale")
u_loss, u_vector, sigma_f = pl.col("u_loss"), pl.col("u_vector"), pl.col("sigma_f")
value = pl.col("value")
"""The metric's own value; only for series and claims."""
