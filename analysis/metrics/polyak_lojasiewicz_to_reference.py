"""The Polyak–Łojasiewicz inequality with the loss of a reference point for the smallest."""

import polars as pl

from analysis.columns import Units, coupled_decay, g_x, ga_ga, ga_gb, gb_gb, loss_x, loss_y, u_vector, x_x
from analysis.decay import decay_rise, regularized
from analysis.metric import Claim, Metric
from analysis.rounding import GRADIENT_ERRORS, loss_difference_rounding
from analysis.series import exponential_mean, running_mean

_above = loss_x - loss_y
_lower = _above.is_finite() & (_above <= loss_difference_rounding)
_mu = (ga_gb + 0 * _above) / (2 * _above)  # an infinite loss gives no ratio
_lower_decayed = (_above + decay_rise).is_finite() & (_above + decay_rise <= loss_difference_rounding)
_decayed = ga_gb + 2 * coupled_decay * g_x + coupled_decay**2 * x_x  # the halves' product of ∇f + λx
_rounding = GRADIENT_ERRORS * u_vector * (ga_ga * gb_gb).sqrt()

metric = Metric(
    name="polyak_lojasiewicz_to_reference",
    family="B",
    catalogue=("B14",),
    title="Polyak–Łojasiewicz constant of each step, above the loss of a reference point",
    paper="Polyak–Łojasiewicz inequality, Karimi, Nutini, Schmidt (2016), arXiv:1608.04636",
    formula="⟨g_a, g_b⟩ / (2 (f(x) − f(x_r))) where f(x) > f(x_r)",
    units=Units(loss=1, distance=-2),
    value=pl.when(~_lower).then(_mu),
    pairings=("reference",),
    blocks="no",
    ratio=(ga_gb, 2 * _above),
    tolerance=(_rounding + 2 * _mu.abs() * loss_difference_rounding) / _above.abs(),
    series=(running_mean(), exponential_mean(0.99)),
    variants=(regularized(pl.when(~_lower_decayed).then(_decayed / (2 * (_above + decay_rise)))),),
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
