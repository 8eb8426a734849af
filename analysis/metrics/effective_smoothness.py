"""Effective smoothness: how fast the gradient changes along itself, at steps of several lengths."""

from analysis.columns import Units, lr, u_vector, value
from analysis.columns_of_replays import shortest_rate, smoothness_along_gradient
from analysis.metric import Claim, Metric
from analysis.rounding import GRADIENT_ERRORS
from analysis.series import exponential_mean, limit, running_max

_BELOW = "below 2/lr at 90 % of the steps"
_rounding = 2 * GRADIENT_ERRORS * u_vector / shortest_rate

metric = Metric(
    name="effective_smoothness",
    family="C",
    catalogue=("C5",),
    title="Effective smoothness along the gradient",
    paper="Santurkar et al. (2018), arXiv:1805.11604, effective β-smoothness",
    formula="max_η ‖∇f(x_t − η g) − g‖ / (η ‖g‖),  g = ∇f(x_t, z_t),  η = ¼ lr … 4 lr, on z_t",
    units=Units(loss=1, distance=-2),
    value=smoothness_along_gradient,  # ≤ L wherever the gradient is L-Lipschitz
    blocks="no",
    tolerance=_rounding,
    series=(running_max(), exponential_mean(0.99), limit("two_over_lr", "2 / lr", 2 / lr, claim=_BELOW)),
    claims=(
        Claim(
            name=_BELOW,
            at_most=2,
            over="quantile",
            at_quantile=0.9,
            quantity=value * lr,
            tolerance=_rounding * lr,
            says="At 90 % of the recorded steps lr times the effective smoothness of the minibatch's own loss is at "
            "most 2, so that along its gradient, up to four learning rates far, a step of gradient descent with lr "
            "lowers that loss. In-sample, whole model, Euclidean norm, whatever the optimizer did.",
            caveat="It is about steps along the raw gradient; momentum and Adam take others. Above 2 it does not "
            "refute smoothness with a constant above 2/lr.",
        ),
        Claim(
            name="does not keep growing",
            at_most=0,
            over="trend",
            says="The mean effective smoothness of the minibatch losses in the second half of the run is not above "
            "that of the first half. Whole model, Euclidean norm.",
            caveat="Growth refutes one constant that is tight along the path, not smoothness with a larger constant.",
        ),
    ),
    caveats=(
        "On a quadratic ‖Hg‖ / ‖g‖, whatever η. A linear loss has 0.",
        "Where η ‖g‖ nears the rounding of the parameters, points are not where they should be: in float32, late in a "
        "run with a small learning rate, the value is rounding.",
        "Each η costs a forward and a backward pass.",
    ),
)
