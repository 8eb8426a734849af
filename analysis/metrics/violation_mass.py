"""How much of all convexity gaps is on the wrong side."""

import polars as pl

from analysis.columns import Units, dg_d, gx_d, loss_x, loss_y
from analysis.metric import Claim, Metric
from analysis.rounding import loss_difference_rounding, resolved
from analysis.series import exponential_mean, running_mean

_resolved, _rounding = resolved(loss_x - loss_y - gx_d, -dg_d / 2, loss_difference_rounding)
_above, _all = pl.when(_resolved > 0).then(_resolved).otherwise(0 * _resolved), _resolved.abs()
_positive = pl.when(_resolved.is_nan()).then(_resolved).when(_resolved > 0).then(1.0).when(_resolved <= 0).then(0.0)

metric = Metric(
    name="violation_mass",
    family="A",
    catalogue=("A5",),
    title="Share of positive convexity gaps, by number and by mass",
    formula="1 where the convexity gap is positive, else 0; over a window Σ max(gap, 0) / Σ |gap|",
    units=Units(),
    value=_positive,
    pairings=("previous", "next"),
    blocks="no",
    ratio=(_above, _all),
    series=(running_mean(), exponential_mean(0.99)),
    claims=(
        Claim(
            name="little mass above 0",
            at_most=0.05,
            over="ratio",
            numerator=_above,
            denominator=_all,
            says="Of the summed sizes of the convexity gaps of the minibatch losses f(·, z_t), positive gaps make up "
            "at most 5 % over the recorded steps: Σ max(gap, 0) / Σ |gap|. Convexity of every minibatch loss predicts "
            "0. No norm enters.",
            caveat="5 % is a convention; one half is reached exactly where the mean gap is 0. Rounding makes gaps of "
            "either sign: a linear loss has mass 1/2 made of nothing. It does not refute convexity of the population "
            "loss, for minibatch gaps scatter around the population's.",
        ),
    ),
    caveats=("A single value tells only the sign; windows tell the mass.",),
)
