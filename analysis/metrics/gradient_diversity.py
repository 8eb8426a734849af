"""Gradient diversity of the two halves of a minibatch."""

from analysis.columns import Units, ga_ga, ga_gb, gb_gb, u_vector
from analysis.metric import Metric
from analysis.rounding import GRADIENT_ERRORS
from analysis.series import exponential_mean, running_mean

_apart, _together = ga_ga + gb_gb, ga_ga + gb_gb + 2 * ga_gb

metric = Metric(
    name="gradient_diversity",
    family="F",
    catalogue=("F5",),
    title="Gradient diversity of the two halves",
    paper="Yin et al. (2018), arXiv:1706.05699, definition 1, with the two halves for examples",
    formula="(‖g_a‖² + ‖g_b‖²) / ‖g_a + g_b‖²",
    units=Units(),
    value=_apart / _together,  # 1/2 for equal halves, 1 for orthogonal ones
    blocks="trajectory",
    ratio=(_apart, _together),
    tolerance=2 * GRADIENT_ERRORS * u_vector * _apart / _together * (1 + _apart / _together),
    series=(running_mean(), exponential_mean(0.99)),
    caveats=(
        "Descriptive. Of two halves it is 1 − snr/2 of the same step: diversity among single examples needs their "
        "gradients, which no trace has.",
    ),
)
