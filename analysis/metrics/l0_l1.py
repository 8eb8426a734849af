"""(L0, L1)-smoothness: does the local smoothness grow with the gradient, and with nothing else?"""

from analysis.columns import Units, d_d, dg_dg, gy_gy, loss_y
from analysis.metric import Claim, Metric
from analysis.rounding import gradient_difference_rounding
from analysis.series import exponential_mean, running_max

_smoothness = (dg_dg / d_d).sqrt()
_rounding = gradient_difference_rounding / d_d.sqrt()

metric = Metric(
    name="l0_l1",
    family="C",
    catalogue=("C6",),
    title="Smoothness per gradient norm",
    paper="Zhang, He, Sra, Jadbabaie (2020), arXiv:1905.11881",
    formula="(‖∇f(x) − ∇f(y)‖ / ‖x − y‖) / ‖∇f(y)‖",
    units=Units(distance=-1),
    value=_smoothness / gy_gy.sqrt(),  # ≤ L1 where L0 = 0
    tolerance=_rounding / gy_gy.sqrt(),
    pairings=("previous", "next"),
    series=(running_max(), exponential_mean(0.99)),
    claims=(
        Claim(
            name="(L0, L1)-smooth",
            at_most=2,
            over="envelope",
            at_quantile=0.99,
            quantity=_smoothness,
            tolerance=_rounding,
            regressors=(gy_gy.sqrt(),),
            says="Local smoothness is at most L0 + L1 ‖∇f(y)‖ along the recorded steps: with L0 and L1 fitted to 99 % "
            "of the first half, at most 2 % of the second half lie above. Each minibatch by itself, whole model, "
            "Euclidean norm.",
            caveat="That an affine bound carries over does not say that L1 is needed (L1 = 0 is plain smoothness), nor "
            "that it holds off the path. Noise of the minibatch in ‖∇f(y)‖ flattens the fit; noise common to both "
            "sides makes a slope where there is none. Steps of one length see less than the Hessian: on f = e^−x and "
            "steps δ the slope is L1 (1 − e^−δ)/δ. A violation refutes these constants, not larger ones.",
        ),
        Claim(
            name="smooth in the loss",
            at_most=2,
            over="envelope",
            at_quantile=0.99,
            quantity=_smoothness,
            tolerance=_rounding,
            regressors=(loss_y,),
            says="Local smoothness is at most L0 + L1 f(y) along the recorded steps, for losses that are at least 0: "
            "with L0 and L1 fitted to 99 % of the first half, at most 2 % of the second half lie above. Each "
            "minibatch by itself, whole model, Euclidean norm.",
            caveat="A variant of (L0, L1)-smoothness with the loss in place of the gradient norm. It does not say that "
            "L1 is needed, and a violation does not refute larger constants. A lower bound of the loss other than 0 "
            "moves into L0.",
        ),
    ),
    caveats=(
        "Null value: with a constant Hessian it rises as the gradient falls, for L1 = 0 there. Read the fitted L0 and "
        "L1, not the value alone.",
        "cosh has L0 = L1 = 1; x⁴/4 grows like the 2/3rd power of its gradient, below every affine function.",
        "Per block the value follows the whole trajectory: the other blocks move too.",
    ),
)
