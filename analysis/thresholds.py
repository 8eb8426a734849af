"""How sharp a valley an optimizer can stand in: learning rate times curvature at the limit of stability.

On a quadratic with curvature h each rule below converges exactly where lr·h is under its limit. They are statements
about the whole data: Cohen et al. (2021), arXiv:2103.00065; for Adam in its own metric Cohen et al. (2022),
arXiv:2207.14484.
"""

import polars as pl

_b, _first = pl.col("momentum"), pl.col("betas.0")
_dampening = pl.when(_b == 0).then(0.0).otherwise(pl.col("dampening").fill_null(0))  # torch reads it with momentum only

sgd_limit: pl.Expr = 2 * (1 + _b) / (1 - _dampening + 2 * _b * pl.col("nesterov"))
"""2 for gradient descent, 2(1+b) with torch's momentum b, 2(1+b)/(1−b) where dampening b makes it a mean of gradients,
2(1+b)/(1+2b) with Nesterov's."""

adam_limit: pl.Expr = 2 * (1 + _first) / (1 - _first)
"""2(1+β₁)/(1−β₁) for Adam and AdamW, whose first moment is a mean of gradients: 38 at β₁ = 0.9."""
