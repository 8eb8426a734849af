"""Smoothness between the path and a reference point."""

from analysis.columns import Units, coupled_decay, d_d, dg_d, dg_dg, lr, value
from analysis.decay import regularized
from analysis.metric import Caution, Claim, Metric
from analysis.rounding import gradient_difference_rounding
from analysis.series import exponential_mean, running_max

_rounding = gradient_difference_rounding / d_d.sqrt()

metric = Metric(
    name="reference_smoothness",
    family="C",
    catalogue=("C12",),
    title="Smoothness towards the reference point",
    paper="Tran, Zhang, Cutkosky (2024), arXiv:2407.01825, section 4, eq. 4, with y = the reference point",
    formula="‖∇f(x) − ∇f(y)‖ / ‖x − y‖",
    units=Units(loss=1, distance=-2),
    value=(dg_dg / d_d).sqrt(),  # ≤ L wherever the gradient is L-Lipschitz
    tolerance=_rounding,
    pairings=("reference",),
    series=(running_max(), exponential_mean(0.99)),
    variants=(regularized(((dg_dg + 2 * coupled_decay * dg_d + coupled_decay**2 * d_d) / d_d).sqrt()),),
    claims=(
        Claim(
            name="below 2/lr",
            at_most=2,
            over="quantile",
            at_quantile=0.99,
            quantity=value * lr,
            tolerance=_rounding * lr,
            optimizers=("SGD",),
            optimizers_why="the learning rate is a Euclidean step length per gradient only in gradient descent",
            says="At 99 % of the recorded steps the smoothness of the minibatch loss between x_t and the reference "
            "point, times the learning rate of the step that leaves x_t, is at most 2, as the descent lemma of plain "
            "gradient descent needs. Each minibatch by itself, whole model, Euclidean norm.",
            caveat="A chord of length ‖x_t − reference‖ averages the Hessian along it, so a small value does not bound "
            "the smoothness of a step. A large one refutes L ≤ 2/lr for this minibatch.",
            cautions=(Caution("momentum", 0, "With momentum b the limit of full-batch quadratics is 2(1+b)/lr."),),
        ),
        Claim(
            name="does not keep growing",
            at_most=0,
            over="trend",
            says="The mean smoothness of the minibatch losses between x_t and the reference point is not larger in the "
            "second half of the run than in the first. Whole model, Euclidean norm.",
            caveat="Growth refutes one constant that is tight along the path, not smoothness with a larger constant. "
            "As x_t comes near the reference the value tends to a directional curvature there.",
        ),
    ),
    caveats=(
        "Both gradients are of one minibatch. With a gradient of another minibatch at the reference, as in a "
        "checkpoint that stored its own, the value is √(2 tr Σ)/‖x_t − reference‖ and explodes at the end of the run, "
        "whatever the smoothness.",
        "Per block the value follows the whole difference: the other blocks differ too.",
    ),
)
