"""Is the optimisation curve convex: do the losses fall ever more slowly?"""

import polars as pl

from analysis.columns import Units, noise_rate
from analysis.metric import Metric, Variant
from analysis.noise import minibatch_noise
from analysis.rounding import loss_errors
from analysis.series import cumulative, exponential_mean, running_mean

_before, _here, _after = pl.col("loss_previous"), pl.col("loss"), pl.col("loss_next")
_second = _after - 2 * _here + _before

metric = Metric(
    name="curve_convexity",
    family="A",
    catalogue=("A11",),
    title="Second difference of the loss along the path, on one minibatch",
    paper="Barzilai, Shamir, Zamani (2025), arXiv:2503.10138: on convex L-smooth losses the curve of gradient descent "
    "is convex for lr ≤ 1.75/L, and on quadratics for lr ≤ 2/L",
    formula="f(x_{t+1}, z_t) − 2 f(x_t, z_t) + f(x_{t−1}, z_t)",
    units=Units(loss=1),
    value=_second,  # ≥ 0 on the whole data
    blocks="no",
    tolerance=loss_errors(_after.abs() + 2 * _here.abs() + _before.abs(), squares=6),
    series=(running_mean(), exponential_mean(0.99), cumulative()),
    variants=(
        Variant(
            "without_noise",
            "with lr tr Σ added, the part that noise takes off with SGD (R2); needs half batches",
            _second + noise_rate * minibatch_noise,
        ),
    ),
    caveats=(
        "Descriptive: the theorem is about gradient descent on the whole data, and a trace does not say whether a "
        "minibatch was that. There a negative value refutes convex, L-smooth and lr ≤ 1.75/L all at once.",
        "On smaller minibatches the step ahead is in sample and the step behind is not: noise alone lowers the mean by "
        "lr tr Σ for SGD, and the sign says nothing.",
        "Needs both probes, look-back and look-ahead. A linear loss under constant steps has 0.",
    ),
)
