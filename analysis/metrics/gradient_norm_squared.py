"""The squared gradient norm of the population loss, without the noise of the minibatch in it."""

from analysis.columns import Units, ga_ga, ga_gb, gb_gb, u_vector
from analysis.metric import Caution, Claim, Metric
from analysis.rounding import GRADIENT_ERRORS
from analysis.series import cumulative, exponential_mean, running_mean

metric = Metric(
    name="gradient_norm_squared",
    family="F",
    catalogue=("F1", "A12"),
    title="Squared gradient norm of the population loss",
    paper="Product of two independent estimates; McCandlish et al. (2018), arXiv:1812.06162, appendix A",
    formula="⟨g_a, g_b⟩, g_a and g_b of the two halves of z_t",
    units=Units(loss=2, distance=-2),
    value=ga_gb,
    blocks="share",
    tolerance=GRADIENT_ERRORS * u_vector * (ga_ga * gb_gb).sqrt(),
    series=(running_mean(), exponential_mean(0.99), cumulative()),
    claims=(
        Claim(
            name="does not grow",
            at_most=0,
            over="trend",
            null_value=0.0,
            population=True,
            optimizers=("SGD",),
            optimizers_why="it is stated for gradient descent",
            says="The squared gradient norm of the population loss is on average over the second half of the run not "
            "above that over the first half, as gradient descent with lr ≤ 2/L on a convex L-smooth loss never "
            "lengthens the gradient. Whole model, Euclidean norm.",
            caveat="It is stated for full-batch steps: noise holds the gradient of a stationary run at a level instead "
            "of letting it fall, which is no growth. Growth refutes convex, L-smooth and lr ≤ 2/L all at once, not any "
            "one of them.",
            cautions=(Caution("momentum", 0, "With momentum the gradient norm may rise and fall on convex losses."),),
        ),
    ),
    caveats=(
        "Single values may be negative: the halves are noisy, and only their mean is a squared norm.",
        "The halves must be drawn independently; two halves of one draw without replacement from few examples are "
        "negatively correlated and bias it down.",
    ),
)
