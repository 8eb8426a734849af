"""Does the loss curve follow the bound of convex theory, as its schedule of learning rates draws it?"""

from analysis.columns import Units, loss, loss_moved, loss_spread, rate_curve
from analysis.metric import Claim, Metric
from analysis.rounding import loss_errors
from analysis.series import exponential_mean, running_mean

_apart = loss - rate_curve
_rounding = loss_errors(loss.abs(), 1)

metric = Metric(
    name="convex_dominance",
    family="G",
    catalogue=("G4",),
    title="Loss above the convex curve of its schedule",
    paper="Bu, Xu, Mao (2026), arXiv:2602.07145, after the last-iterate bound of Defazio et al. (2023), Theorem 10",
    formula="f(x_t) − (L∞ + a S1 + b S2), S1 = 1/(2 Σ lr), S2 the rest of the last-iterate bound at G = 1; L∞, a ≥ 0, "
    "b ≥ 0 fitted to the first half",
    units=Units(loss=1),
    value=_apart,
    blocks="no",
    tolerance=_rounding,
    series=(running_mean(), exponential_mean(0.99)),
    claims=(
        Claim(
            name="goes on as fitted",
            at_most=0.5,
            over="on average",
            quantity=(_apart**2 - loss_spread) / loss_moved,
            tolerance=2 * _rounding * _apart.abs() / loss_moved,
            says="The curve fitted to the first half of the run explains at least half of how the loss moves in the "
            "second (R² of at least 0.5): its mean squared distance from the recorded steps' minibatch losses is at "
            "most half of that from their mean. The variance of a minibatch's loss, half the mean squared difference "
            "of neighbours, is taken off both. It depends on no norm.",
            caveat="One half is a convention. A curve that fits says that convex theory could have drawn it, not that "
            "the loss is convex; one that does not fit refutes this form for this schedule, not convexity. The bound "
            "is SGD's; for other optimizers it is an analogy that was observed. A slow departure counts as few "
            "independent values: then read the estimate, 1 − R².",
        ),
    ),
    caveats=(
        "a stands for D², b for G² in the bound; both are fitted, and need not be the run's own.",
        "The bound with the run's own distances and gradients is the end of the proof sgd_last_iterate.",
    ),
)
