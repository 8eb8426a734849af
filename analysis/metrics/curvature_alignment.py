"""Curvature alignment: does the gradient change in the direction of the step?"""

from analysis.columns import Units, d_d, dg_d, dg_dg
from analysis.metric import Metric
from analysis.rounding import gradient_difference_rounding
from analysis.series import exponential_mean, running_mean

metric = Metric(
    name="curvature_alignment",
    family="C",
    catalogue=("C3",),
    title="Curvature alignment of each step",
    paper="Links the local smoothness of Tran, Zhang, Cutkosky (2024), arXiv:2407.01825, eq. 4, to the Hessian",
    formula="⟨∇f(x) − ∇f(y), x − y⟩ / (‖∇f(x) − ∇f(y)‖ ‖x − y‖)",
    units=Units(),
    value=dg_d / (dg_dg * d_d).sqrt(),  # = curvature / smoothness, in [−1, 1]
    tolerance=2 * gradient_difference_rounding / dg_dg.sqrt(),
    pairings=("previous", "next"),
    series=(running_mean(), exponential_mean(0.99)),
    caveats=(
        "It is 1 exactly if the step is an eigenvector, with positive eigenvalue, of the Hessian averaged over the "
        "step; in one dimension it is always 1 or −1. Only near 1, and along the top eigenvector, is local smoothness "
        "a proxy for sharpness; otherwise it is a lower bound for the minibatch's and no bound for the population's.",
        "Descriptive: no theory claims a value. On a quadratic with Hessian H it is cos(Hd, d).",
        "Noise of the Hessian turns the gradient difference away from the step: the value of the population is larger.",
        "Not defined where the gradient does not change (a linear loss).",
    ),
)
