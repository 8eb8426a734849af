"""Strong convexity between the path and a reference point."""

from analysis.columns import Units, coupled_decay, d_d, dg_d, gx_d, loss_x, loss_y
from analysis.decay import regularized
from analysis.metric import Claim, Metric
from analysis.rounding import loss_difference_rounding, resolved
from analysis.series import exponential_mean, running_mean

_resolved, _rounding = resolved(loss_x - loss_y - gx_d, -dg_d / 2, loss_difference_rounding)

metric = Metric(
    name="strong_convexity",
    family="B",
    catalogue=("B6", "B9"),
    title="Strong-convexity modulus towards a reference point",
    paper="Strong convexity f(x_r) ≥ f(x) + ⟨∇f(x), x_r − x⟩ + μ‖x − x_r‖²/2, solved for μ; also called strong aiming",
    formula="2 (⟨∇f(x), x − x_r⟩ − (f(x) − f(x_r))) / ‖x − x_r‖²",
    units=Units(loss=1, distance=-2),
    value=-2 * _resolved / d_d,  # ≥ μ
    pairings=("reference",),
    blocks="no",
    ratio=(-2 * _resolved, d_d),
    tolerance=2 * _rounding / d_d,
    series=(running_mean(), exponential_mean(0.99)),
    variants=(regularized(-2 * _resolved / d_d + coupled_decay),),
    claims=(
        Claim(
            name="star-convex on average, by distance",
            at_least=0,
            over="on average",
            null_value=0.0,
            population=True,
            says="The population loss is strongly convex towards the reference point with some μ ≥ 0 on average over "
            "the recorded steps, near and far steps alike. Whole model, Euclidean norm.",
            caveat="Steps close to the reference weigh most; reference_gap weighs them by their loss. A modulus below "
            "0 is a weak-convexity modulus with its sign turned and does not refute one of that size.",
        ),
        Claim(
            name="star-convex at 95 % of the steps, by distance",
            at_least=0,
            over="quantile",
            at_quantile=0.05,
            null_value=0.0,
            says="The minibatch losses f(·, z_t) are strongly convex towards the reference point with some μ ≥ 0, seen "
            "from 95 % of the recorded steps: the 5 % quantile is at least 0. Whole model, Euclidean norm.",
            caveat="A negative value refutes convexity of that minibatch loss between x_t and the reference; it does "
            "not refute star-convexity of the population loss.",
        ),
    ),
    caveats=("On quadratics it is eᵀHe/eᵀe with e = x − x_r, whatever the reference. A linear loss has 0.",),
)
