"""The gradient noise scale, in minibatches."""

import polars as pl

from analysis.columns import Units, ga_ga, ga_gb, gb_gb, u_vector, value
from analysis.metric import Claim, Metric, Variant
from analysis.noise import minibatch_noise
from analysis.rounding import GRADIENT_ERRORS
from analysis.series import Series

_ratio = minibatch_noise / ga_gb
_known = value.fill_nan(None).is_not_null()

metric = Metric(
    name="noise_scale",
    family="F",
    catalogue=("F2",),
    title="Gradient noise scale, in minibatches",
    paper="Simple noise scale B_simple = tr Σ / ‖∇F‖², McCandlish et al. (2018), arXiv:1812.06162, eq. 2.9",
    formula="‖g_a − g_b‖² / (4⟨g_a, g_b⟩); over a window Σ over Σ",
    units=Units(),
    value=_ratio,
    blocks="trajectory",
    ratio=(minibatch_noise, ga_gb),
    tolerance=GRADIENT_ERRORS * u_vector * (ga_ga + gb_gb) / ga_gb.abs() * (1 + _ratio.abs()),
    series=(
        Series(
            "cumulative_ratio",
            "sum of noise so far / sum of squared gradient norms so far",
            pl.when(_known).then(minibatch_noise).cum_sum() / pl.when(_known).then(ga_gb).cum_sum(),
        ),
    ),
    variants=(Variant("mean_of_ratios", "the mean of single steps' ratios, which zero crossings dominate", _ratio),),
    claims=(
        Claim(
            name="below one minibatch",
            at_most=1,
            over="ratio",
            numerator=minibatch_noise,
            denominator=ga_gb,
            population=True,
            says="The minibatch is at least as large as the gradient noise scale: summed over all recorded steps its "
            "gradient's variance is at most the squared gradient norm of the population loss. Whole model, Euclidean "
            "norm.",
            caveat="It is no assumption of an analysis but the size beyond which larger minibatches pay little; above "
            "it, it does not refute anything. Pooling steps with different scales gives their weighted mean.",
        ),
    ),
    caveats=("Times the number of examples in a minibatch it is the critical batch size.",),
)
