"""Semi-smoothness: how far above its tangent the loss may rise, with a term for kinks."""

from analysis.columns import Units, d_d, gy_d, loss_x, loss_y
from analysis.metric import Claim, Metric
from analysis.rounding import forward_difference_rounding
from analysis.series import exponential_mean, running_max

_forward_gap = loss_x - loss_y - gy_d

metric = Metric(
    name="semi_smoothness",
    family="C",
    catalogue=("C8",),
    title="Rise above the tangent per step length",
    paper="Allen-Zhu, Li, Song (2019), arXiv:1811.03962, theorem 4",
    formula="(f(x) − f(y) − ⟨∇f(y), x − y⟩) / ‖x − y‖",
    units=Units(loss=1, distance=-1),
    value=_forward_gap / d_d.sqrt(),
    tolerance=forward_difference_rounding / d_d.sqrt(),
    pairings=("previous", "next"),
    blocks="no",
    series=(running_max(), exponential_mean(0.99)),
    claims=(
        Claim(
            name="semi-smooth",
            at_most=2,
            over="envelope",
            at_quantile=0.99,
            quantity=_forward_gap / d_d,  # ≤ C2 + C1 √f(y) / ‖d‖: divided by ‖d‖², so that C2 is the constant term
            tolerance=forward_difference_rounding / d_d,
            regressors=((loss_y / d_d).sqrt(),),
            says="f(x) ≤ f(y) + ⟨∇f(y), d⟩ + C1 √f(y) ‖d‖ + C2 ‖d‖² along the recorded steps, for losses that are at "
            "least 0: with C2 (the constant) and C1 (the slope) fitted to 99 % of the first half, at most 2 % of the "
            "second half lie above. Each minibatch by itself, whole model, Euclidean norm.",
            caveat="A smooth loss has C1 near 0; C1 above 0 says that the rise per step length does not vanish with "
            "the step, as at kinks. Only steps of different lengths tell C1 from C2. It does not bound the loss from "
            "below, says nothing off the path, and a violation does not refute larger constants.",
        ),
    ),
    caveats=(
        "Null value: 0 on a linear loss, whatever the noise. On a quadratic with Hessian H it is dᵀHd/(2‖d‖). "
        "(1+|x|)²/2 has C1 = 2√2 and C2 = 1/2, both tight across the kink.",
        "A difference of losses is in it: on short steps in single precision rounding decides.",
    ),
)
