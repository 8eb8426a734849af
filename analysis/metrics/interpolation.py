"""Interpolation: is the loss at a reference point small on every minibatch, not only on average?"""

import polars as pl

from analysis.columns import Units, gx_gx, gy_gy, loss_start, loss_x, loss_y, u_vector, value
from analysis.metric import Claim, Metric
from analysis.rounding import GRADIENT_ERRORS, loss_errors
from analysis.series import Series, running_max, running_mean

SMALL = 0.01  # of the loss that training began with
_share = pl.when(loss_start > 0).then(loss_y.abs() / loss_start)
_rounding = loss_errors(loss_y.abs(), 1)
_share_rounding = (_rounding + _share * loss_errors(loss_start.abs(), 1)) / loss_start.abs()
_both = value.is_finite() & loss_x.is_finite()

metric = Metric(
    name="interpolation",
    family="F",
    catalogue=("F6",),
    title="Loss of each minibatch at a reference point",
    paper="Ma, Bassily, Belkin (2018), arXiv:1712.06559: one point minimises every f(·, z), here with 0 for its "
    "smallest value; Vaswani, Bach, Schmidt (2019), arXiv:1810.07288: ∇f(x_r, z) = 0 for every z",
    formula="f(x_r, z_t)",
    units=Units(loss=1),
    value=loss_y,
    pairings=("reference",),
    blocks="no",
    tolerance=_rounding,
    series=(
        running_mean(),
        running_max(),
        Series(
            "share_of_start",
            "share of the loss that training began with",
            pl.when(value.is_finite()).then(_share),
            role="beside",
        ),
        Series(
            "share_so_far",
            "Σ f(x_r, z_s) / Σ f(x_s, z_s) over the steps so far",
            pl.when(_both).then(loss_y).cum_sum() / pl.when(_both).then(loss_x).cum_sum(),
            role="beside",
        ),
    ),
    claims=(
        Claim(
            name="small on every minibatch",
            at_most=SMALL,
            quantity=_share,
            tolerance=_share_rounding,
            null_value=1.0,
            says="The reference point interpolates: the loss of each recorded minibatch there, f(x_r, z_t), is at most "
            "1 % of the loss that training began with (the mean of the first 10 recorded losses), with 0 for the "
            "smallest value of every loss. Every recorded step's minibatch by itself; it depends on no norm.",
            caveat="1 % is a convention, and so is 0: a loss with a positive smallest value (label smoothing, a "
            "penalty on the weights, regression with noisy labels) cannot pass although one point may minimise every "
            "f(·, z); then the claim on gradients decides. The mean of a minibatch bounds a single example's loss only "
            "up to the number of examples. Minibatches without training's augmentation or dropout are other losses.",
        ),
        Claim(
            name="small on 95 % of the minibatches",
            at_most=SMALL,
            over="quantile",
            at_quantile=0.95,
            quantity=_share,
            tolerance=_share_rounding,
            null_value=1.0,
            says="At 95 % of the recorded steps the loss of the minibatch at the reference point, f(x_r, z_t), is at "
            "most 1 % of the loss that training began with (the mean of the first 10 recorded losses): the 95 % "
            "quantile of the share is at most 0.01. It depends on no norm.",
            caveat="Interpolation leaves out no minibatch; this claim forgives a few examples that are wrongly "
            "labelled. A failure does not refute that the model could interpolate: another point might.",
        ),
        Claim(
            name="gradients vanish there",
            at_most=SMALL,
            over="ratio",
            numerator=gy_gy,
            denominator=gx_gx,
            tolerance=2 * GRADIENT_ERRORS * u_vector * (gy_gy + SMALL * gx_gx),
            null_value=1.0,
            says="The gradients of the minibatches at the reference point, ∇f(x_r, z_t), sum up over the recorded "
            "steps to at most 1 % of those along the path in squared norm: Σ‖∇f(x_r, z_t)‖² ≤ 0.01 Σ‖∇f(x_t, z_t)‖². "
            "Whole model, Euclidean norm.",
            caveat="It needs no smallest value of the loss, and holds at a saddle or a maximum of every f(·, z), too. "
            "1 % is a convention, and a path that ends at the reference makes its own side small. A failure does not "
            "refute interpolation by another point.",
        ),
    ),
    caveats=(
        "Null value: a reference no better than the start has a share of about 1; read the negative controls.",
        "A last iterate has been trained on these very minibatches: interpolation is about them, not about new data.",
        "A recording that began late measures against a loss that had fallen already, and fails more easily.",
    ),
)
