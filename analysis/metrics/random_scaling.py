"""Random scaling: with randomly scaled steps the gradient at the new point accounts for the loss, convex or not."""

import math

import polars as pl

from analysis.columns import Units, gx_d, loss_x, loss_y, scale_d, scale_least, scale_most, value
from analysis.metric import Claim, Metric, Variant
from analysis.rounding import loss_rounding, slope_rounding
from analysis.series import cumulative, exponential_mean, running_mean

_change, _slope = loss_x - loss_y, gx_d / scale_d
_exponential = _change - _slope
_uniform_2 = _change - (2 - scale_d) * _slope
_uniform_1 = _change - (1 - scale_d) * _slope


def _claim(law: str, weight: str, residual: pl.Expr, low: float, high: float) -> Claim:
    """The identity for scales of one law; a run's largest scale tells it: above ``low``, at most ``high``."""
    this_law = (scale_most > low) & (scale_most <= high) & (scale_least < scale_most)  # equal scales are not random
    margin = 0.05 * pl.when(value.is_finite()).then(_change).mean().abs()
    return Claim(
        name=f"identity for {law}",
        at_most=0,
        over="equivalent",
        quantity=pl.when(this_law).then(residual),
        margin=margin,
        null_value=0.0,
        says=f"For steps s·V with s drawn from {law}, independently of all else, the loss changes on average over the "
        f"recorded steps by {weight}⟨∇f(x), V⟩: the residual is 0 within 5 % of |Σ (f(x) − f(y))|. Population on "
        "fresh minibatches, each minibatch's own loss in-sample; it depends on no norm. Judged on runs whose largest "
        "scale is " + (f"above {low:g}." if math.isinf(high) else f"above {low:g} and at most {high:g}."),
        caveat="An identity of the expectation over s for every loss, convex or not, smooth or not: a failure points "
        "at scales that were recorded wrongly, follow another law or depend on the step, not at the loss. Where it "
        "holds, it says nothing of convexity. Its variance is large: look at the effective number of steps.",
    )


metric = Metric(
    name="random_scaling",
    family="E",
    catalogue=("E1",),
    title="Residual of the random-scaling identity",
    paper="Zhang and Cutkosky (2024), arXiv:2405.09742; Tran, Zhang, Cutkosky (2024), arXiv:2407.01825, section 4.3",
    formula="f(x) − f(y) − ⟨∇f(x), V⟩ with x − y = s·V, s ~ Exp(1)",
    units=Units(loss=1),
    value=_exponential,
    tolerance=loss_rounding + slope_rounding / scale_d,
    pairings=("previous", "next"),
    blocks="no",
    series=(
        running_mean(),
        exponential_mean(0.99),
        cumulative(title="cumulative residual"),
        cumulative("cumulative_loss_change", "cumulative loss change f(x) − f(y)", _change),
        cumulative("cumulative_slope", "cumulative ⟨∇f(x), V⟩", _slope),
    ),
    variants=(
        Variant("uniform_0_2", "for s ~ U[0, 2], weight 2 − s, as in a script of the authors", _uniform_2),
        Variant("uniform_0_1", "for s ~ U[0, 1], weight 1 − s", _uniform_1),
    ),
    claims=(
        _claim("Exp(1)", "", _exponential, 2, math.inf),
        _claim("U[0, 2]", "the mean of (2 − s)", _uniform_2, 1, 2),
        _claim("U[0, 1]", "the mean of (1 − s)", _uniform_1, 0, 1),
    ),
    caveats=(
        "The weight is 1/hazard of the law of s: 1 for Exp(1), 2 − s for U[0, 2], 1 − s for U[0, 1].",
        "With s = 1 at every step the residual is the convexity gap, and no identity.",
    ),
)
