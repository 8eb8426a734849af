"""What noise alone does: the covariance of a minibatch gradient, and how it enters pairs with a reference point.

With g = (g_a + g_b)/2 and independent halves of the minibatch, E⟨g_a, g_b⟩ = ‖∇F‖² and E‖g_a − g_b‖²/4 = tr Σ, the
trace of the covariance of g. Exactly, at every step, ‖g‖² = ⟨g_a, g_b⟩ + ‖g_a − g_b‖²/4.
"""

import polars as pl

from analysis.columns import d_d, ga_ga, ga_gb, gb_gb, noise_rate
from analysis.metric import Bias

minibatch_noise: pl.Expr = (ga_ga + gb_gb - 2 * ga_gb) / 4
"""Unbiased for tr Σ, Σ the covariance of the whole minibatch's gradient; in squared gradients."""

_momentum = pl.col("momentum")  # of SGD; other optimizers have no such column, and no such formula
_nesterov = pl.col("nesterov")
_ahead = pl.col("step").max() - pl.col("step") + 1
_memory = (1 - _momentum ** (_ahead + _nesterov)) / (1 - _momentum)
_independent = pl.col("pairing").cast(pl.String).str.contains("^reference:(initial$|random$|run:)")

reference_noise: pl.Expr = (
    pl.when(_independent).then(0.0).otherwise(noise_rate / (1 + _nesterov * _momentum) * minibatch_noise * _memory)
)
"""E⟨g_t − ∇F(x_t), x_t − x_r⟩ for SGD with torch's momentum b on a constant F: lr tr Σ (1 − b^(T−t))/(1 − b).

With dampening times 1 − dampening; with Nesterov's momentum one power of b more.

Each gradient pushed the reference away from it. An upper estimate where F has curvature, which forgets old noise, and
for averages; 0 for references that do not depend on z_t. In units of loss; the columns are those of a reference pair.
"""


_spread = 1 / (1 - _momentum**2)  # of the buffer, in that of a gradient
step_cosine: pl.Expr = (
    pl.when(_nesterov == 1)
    .then((_momentum**2 + _momentum**3 * _spread) / (1 + 2 * _momentum + _momentum**2 * _spread))
    .when(_nesterov == 0)
    .then(_momentum)
)
"""Cosine of consecutive steps that SGD makes of noise alone: b, with Nesterov's momentum less."""


def total(terms: pl.Expr) -> pl.Expr:
    """Sum of ``terms``; null where none is known, of which a plain sum would make 0."""
    return pl.when(terms.is_not_null().any()).then(terms.sum())


def noise_of_reference(divisor: pl.Expr) -> Bias:
    """R3 for a mean of ⟨g, x − x_r⟩ / ``divisor``: what noise put there if the reference is made of the run."""
    return Bias(
        rule="R3",
        says="The reference was made with the gradients it is compared with: noise alone gives ⟨g, x − x_r⟩ a positive "
        "mean, at most lr tr Σ (1 − b^(T−t))/(1 − b) a step for SGD with momentum b. Needs half batches.",
        amount=pl.when(d_d > 0).then(reference_noise / divisor).mean(),
    )
