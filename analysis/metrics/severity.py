"""How severe a violation of convexity is, against the sizes it is made of."""

from analysis.columns import Units, dg_d, gx_d, loss_x, loss_y
from analysis.metric import Claim, Metric, Variant
from analysis.rounding import loss_difference_rounding, resolved
from analysis.series import exponential_mean, running_max, running_mean

_resolved, _rounding = resolved(loss_x - loss_y - gx_d, -dg_d / 2, loss_difference_rounding)
_size = (loss_x - loss_y).abs() + gx_d.abs()

metric = Metric(
    name="severity",
    family="A",
    catalogue=("A7",),
    title="Severity of the convexity gap",
    formula="gap / (|f(x) − f(y)| + |⟨∇f(x), x − y⟩|)",
    units=Units(),
    value=_resolved / _size,  # in [−1, 1]; > 0 where convexity is violated
    pairings=("previous", "next"),
    blocks="no",
    ratio=(_resolved, _size),
    tolerance=_rounding / _size,
    series=(running_mean(), exponential_mean(0.99), running_max()),
    variants=(
        Variant("over_slope", "gap / |⟨∇f(x), x − y⟩|, unbounded where the slope vanishes", _resolved / gx_d.abs()),
    ),
    claims=(
        Claim(
            name="median not positive",
            at_most=0,
            over="quantile",
            at_quantile=0.5,
            null_value=0.0,
            says="Along most recorded steps the minibatch loss f(·, z_t) is not seen to be non-convex: the median "
            "severity is at most 0. Each minibatch by itself; it depends on no norm.",
            caveat="The median hides rare violations, however severe: look at the largest value. It does not refute "
            "convexity of the population loss. A linear loss has 0 up to rounding.",
        ),
        Claim(
            name="rarely severe",
            at_most=0.1,
            over="quantile",
            at_quantile=0.99,
            null_value=0.0,
            says="At 99 % of the recorded steps a positive gap is at most a tenth of the sizes of loss change and "
            "slope together: the 99 % quantile of the severity is at most 0.1. Each minibatch by itself; no norm "
            "enters.",
            caveat="A tenth is a convention. Near a standstill of the loss both sizes are themselves differences and "
            "severity may be large where the gap is negligible; it does not refute convexity of the population loss.",
        ),
    ),
    caveats=("A pure number, comparable between runs; the mean of severities is not the severity of the mean.",),
)
