"""Local smoothness in the norm of sign steps: the largest coordinate of the step, the sum over the gradient's."""

from analysis.columns import Units, d_max, dg_d, dg_sum, g_sum, u_vector
from analysis.metric import Claim, Metric, Variant
from analysis.rounding import GRADIENT_ERRORS
from analysis.series import exponential_mean, running_max

metric = Metric(
    name="smoothness_linf",
    family="G",
    catalogue=("G1",),
    title="Local smoothness, l∞ norm",
    paper="Tran, Zhang, Cutkosky (2024), arXiv:2407.01825, eq. 4, in the l∞ norm and its dual",
    formula="‖∇f(x) − ∇f(y)‖_1 / ‖x − y‖_∞",
    units=Units(loss=1, distance=-2),
    value=dg_sum / d_max,  # ≤ L∞ wherever the gradient is Lipschitz from l∞ to l1
    tolerance=2 * GRADIENT_ERRORS * u_vector * g_sum / d_max,
    series=(running_max(), exponential_mean(0.99)),
    variants=(Variant("curvature", "curvature in the same norm, ⟨∇f(x) − ∇f(y), d⟩ / ‖d‖_∞²", dg_d / d_max**2),),
    claims=(
        Claim(
            name="does not keep growing",
            at_most=0,
            over="trend",
            says="The mean local smoothness of the minibatch losses along the steps of the second half of the run is "
            "not above that of the first half. Whole model, l∞ norm of steps and l1 norm of gradients.",
            caveat="Growth refutes one constant that is tight all along the path, not smoothness with a larger "
            "constant. No growth bounds nothing off the path. Noise of the Hessian biases the value up.",
        ),
    ),
    caveats=(
        "Sign descent on a diagonal Hessian has tr H, and the curvature in this norm is the same. In general the "
        "curvature is at most the smoothness.",
        "The constant of this norm is up to the number of parameters times the Euclidean one: compare runs, not norms.",
        "Per block the value follows the whole trajectory: the other blocks move too.",
    ),
)
