"""Gradient jump: does the gradient's change vanish with the step, or does it stay, as at a kink?"""

from analysis.columns import Units, d_d, dg_dg
from analysis.metric import Claim, Metric
from analysis.rounding import gradient_difference_rounding
from analysis.series import exponential_mean, running_max

metric = Metric(
    name="gradient_jump",
    family="E",
    catalogue=("E4",),
    title="Change of the gradient along each step",
    paper="Local smoothness of Tran, Zhang, Cutkosky (2024), arXiv:2407.01825, eq. 4, times the length of the step",
    formula="‖∇f(x) − ∇f(y)‖",
    units=Units(loss=1, distance=-1),
    value=dg_dg.sqrt(),  # ≤ L ‖x − y‖ wherever the gradient is L-Lipschitz
    tolerance=gradient_difference_rounding,
    pairings=("previous", "next"),
    series=(running_max(), exponential_mean(0.99)),
    claims=(
        Claim(
            name="affine in the step length",
            at_most=2,
            over="envelope",
            at_quantile=0.99,
            regressors=(d_d.sqrt(),),
            says="The gradient of the minibatch losses changes by at most J + L ‖d‖ along the recorded steps: with J "
            "and L fitted to 99 % of the first half, at most 2 % of the second half lie above. Each minibatch by "
            "itself, whole model, Euclidean norm.",
            caveat="Read the fitted J: 0 for a smooth loss, the jump of the gradient for one with kinks (2 for |x|). "
            "Only steps of different lengths tell J from L. A violation does not refute larger constants, and an "
            "affine bound that carries over does not show smoothness.",
        ),
    ),
    caveats=(
        "On f = |x| with constant steps it is 2 at every crossing, and the local smoothness 2/lr: the law of an edge "
        "of stability without any curvature. As steps shrink, the jump of a smooth loss shrinks with them.",
        "Per block the value follows the whole trajectory: the other blocks move too.",
    ),
)
