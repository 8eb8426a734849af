"""The Polyak–Łojasiewicz inequality with the loss of a reference point for the smallest."""

import polars as pl

from analysis.columns import Units, ga_ga, ga_gb, gb_gb, loss_x, loss_y, u_vector
from analysis.metric import Claim, Metric
from analysis.rounding import GRADIENT_ERRORS, loss_difference_rounding
from analysis.series import exponential_mean, running_mean

_above = loss_x - loss_y
_higher = _above > loss_difference_rounding  # NaN counts as higher, and stays NaN
_mu = ga_gb / (2 * _above)
_rounding = GRADIENT_ERRORS * u_vector * (ga_ga * gb_gb).sqrt()

metric = Metric(
    name="polyak_lojasiewicz_to_reference",
    family="B",
    catalogue=("B14",),
    title="Polyak–Łojasiewicz constant of each step, above the loss of a reference point",
    paper="Polyak–Łojasiewicz inequality, Karimi, Nutini, Schmidt (2016), arXiv:1608.04636, eq. 3",
    formula="⟨g_a, g_b⟩ / (2 (f(x) − f(x_r))) where f(x) > f(x_r)",
    units=Units(loss=1, distance=-2),
    value=pl.when(_higher).then(_mu),
    pairings=("reference",),
    blocks="no",
    ratio=(ga_gb, 2 * _above),
    tolerance=(_rounding + 2 * _mu.abs() * loss_difference_rounding) / _above.abs(),
    series=(running_mean(), exponential_mean(0.99)),
    claims=(
        Claim(
            name="a gradient wherever there is loss to lose",
            at_least=0,
            over="ratio",
            numerator=ga_gb,
            denominator=2 * _above,
            tolerance=_rounding,
            null_value=0.0,
            population=True,
            says="The squared gradient norm of the population loss is some multiple 2μ ≥ 0 of the loss above the "
            "reference point's, summed over all recorded steps: Σ⟨g_a, g_b⟩ / Σ 2(f(x) − f(x_r)), both losses on one "
            "minibatch. Whole model, Euclidean norm.",
            caveat="HOLDS says that the gradient is resolved from 0 and the reference is the better point; the "
            "estimate how large μ is on the whole. It is not a lower bound at every step, and a reference that is no "
            "minimiser makes it larger than the true constant.",
        ),
    ),
    caveats=("Single values are noise of the halves and may be negative; read windows, sum over sum.",),
)
