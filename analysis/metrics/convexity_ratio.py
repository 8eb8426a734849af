"""The convexity ratio of a whole run: slopes towards a reference point over losses above it."""

import polars as pl

from analysis.columns import Units, gx_d, loss_x, loss_y, value
from analysis.decay import decay_rise, decay_slope
from analysis.metric import Bias, Claim, Metric, Variant
from analysis.noise import reference_noise, total
from analysis.rounding import loss_difference_rounding, slope_rounding
from analysis.series import Series

_above = loss_x - loss_y
_ratio = (gx_d + 0 * _above) / _above  # an infinite loss gives no ratio
_noise = total(reference_noise)
_frozen = pl.when(pl.col("pairing").cast(pl.String) == "reference:last").then(loss_x - loss_x.last())


def _so_far(above: pl.Expr, slope: pl.Expr = gx_d) -> pl.Expr:
    defined = value.fill_nan(None).is_not_null()
    return pl.when(defined).then(slope).cum_sum() / pl.when(defined).then(above).cum_sum()


_slopes, _losses = gx_d.sum(), _above.sum()
_clean = pl.when(_losses > _noise).then(_losses - _noise)
_biases = (
    Bias(
        "R3",
        "The reference was made with the gradients in the numerator: what noise would add to the ratio if the "
        "reference loss were a frozen number, at most, for SGD. Needs half batches; for Adam, where noise gives about "
        "lr Σ_i σ_i a step, it is not estimated; not bounded where noise alone could make up the denominator",
        _noise / _clean,
    ),
    Bias(
        "R5",
        "The reference loss is on z_t too, so that the noise of R3 is in numerator and denominator and pulls the ratio "
        "towards 1: by how much, at most",
        _slopes / _losses - (_slopes - _noise) / _clean,
    ),
)

metric = Metric(
    name="convexity_ratio",
    family="B",
    catalogue=("B2",),
    title="Convexity ratio",
    paper="After Tran, Zhang, Cutkosky (2024), arXiv:2407.01825, section 3.2",
    formula="⟨∇f(x), x − x_r⟩ / (f(x) − f(x_r)); over a window Σ over Σ",
    units=Units(),
    value=_ratio,  # a single step's: never averaged
    pairings=("reference",),
    blocks="no",
    ratio=(gx_d, _above),
    tolerance=(slope_rounding + _ratio.abs() * loss_difference_rounding) / _above.abs(),
    series=(
        Series("cumulative_ratio", "sum of slopes so far / sum of loss differences so far", _so_far(_above)),
        Series(
            "frozen_ratio",
            "the same with the reference loss frozen at the last recorded one, as in the 2023 scripts: noise stays in "
            "the numerator alone and inflates it (R5)",
            _so_far(_frozen),
        ),
        Series(
            "regularized_ratio",
            "the same of the loss plus λ‖x‖²/2, λ the weight decay that is added to the gradient",
            _so_far(_above + decay_rise, gx_d + decay_slope),
            role="beside",
        ),
    ),
    variants=(Variant("mean_of_ratios", "the mean of single steps' ratios, which zero crossings dominate", _ratio),),
    claims=(
        Claim(
            name="at least 1",
            at_least=1,
            over="ratio",
            numerator=gx_d,
            denominator=_above,
            null_numerator=_noise,
            biases=_biases,
            says="The identity of convex analyses holds on the whole: the summed slopes towards the reference point "
            "are at least the summed losses above it, Σ⟨∇f(x_t, z_t), x_t − x_r⟩ ≥ Σ(f(x_t, z_t) − f(x_r, z_t)) over "
            "all recorded steps, both losses on the same minibatch. It depends on no norm.",
            caveat="Equivalent to a mean reference_gap at most 0. It means nothing where the sum of loss differences "
            "is not resolved from 0, and a ratio below 1 does not refute convexity of single minibatch losses. A "
            "numerator above 0 alone says nothing (R4). On quadratics the ratio to the minimiser is 2.",
        ),
        Claim(
            name="at least 0",
            at_least=0,
            over="ratio",
            numerator=gx_d,
            denominator=_above,
            null_numerator=_noise,
            biases=_biases,
            says="The path is quasar-convex on the whole with some constant: the summed slopes towards the reference "
            "point have the sign of the summed losses above it over all recorded steps, both losses on the same "
            "minibatch. It depends on no norm.",
            caveat="For the last point of plain SGD the numerator is positive whatever the gradients (R4): that it is "
            "does not support any property of the loss. Compare it with the numerator of noise alone, printed beside "
            "it.",
        ),
    ),
    caveats=(
        "Windows: sum over sum for each epoch and for the run so far; where the denominator changes sign the ratio of "
        "a window blows up and means nothing.",
        "The numerator alone, which needs no loss at the reference, is reference_slope.",
    ),
)
