"""The largest curvature along each step: what a quadratic bound on the whole step needs."""

from analysis.columns import Units, d_d, gx_gx, gy_gy, lr_d, u_vector, value
from analysis.columns_of_replays import curvature_high, curvature_low
from analysis.metric import Caution, Claim, Metric, Variant
from analysis.rounding import GRADIENT_ERRORS
from analysis.series import exponential_mean, limit, running_max

_BELOW = "below 2/lr at 99 % of the steps"
_NEAR = 0.0469  # the first of five Gauss nodes: a slope's error counts most where its step is short
_rounding = GRADIENT_ERRORS * u_vector * (gx_gx.sqrt() + gy_gy.fill_null(gx_gx).sqrt()) / (_NEAR * d_d.sqrt())

metric = Metric(
    name="curvature_along_step",
    family="C",
    catalogue=("C4",),
    title="Largest curvature along each step",
    paper="Mishkin et al. (2024), arXiv:2403.04081, the path-wise directional smoothness A(x, y)",
    formula="max_s ⟨∇f(y + s d) − ∇f(y), d⟩ / (s ‖d‖²),  y = x_{t−1}, d = x_t − x_{t−1}, on z_t",
    units=Units(loss=1, distance=-2),
    value=curvature_high,  # ≤ L wherever the gradient is L-Lipschitz
    blocks="no",
    tolerance=_rounding,
    series=(running_max(), exponential_mean(0.99), limit("two_over_lr", "2 / lr", 2 / lr_d, claim=_BELOW)),
    variants=(Variant("lowest", "the smallest along the step, a bound on strong convexity from above", curvature_low),),
    claims=(
        Claim(
            name=_BELOW,
            at_most=2,
            over="quantile",
            at_quantile=0.99,
            quantity=value * lr_d,
            tolerance=_rounding * lr_d,
            optimizers=("SGD",),
            optimizers_why="the learning rate is a Euclidean step length per gradient only in gradient descent",
            says="At 99 % of the recorded steps lr times the largest curvature along the step is at most 2: the step "
            "is adapted to the loss it crosses. Each minibatch by itself, fresh, whole model, Euclidean norm.",
            caveat="On the minibatch that made a step of plain gradient descent it would mean that its loss fell; a "
            "fresh one did not make it. Above 2 it does not refute smoothness with a constant above 2/lr.",
            cautions=(
                Caution("momentum", 0, "With momentum b the step is not lr·g; full-batch quadratics allow 2(1+b)."),
                Caution("clip_factor", 1, "Clipping shortens steps: the effective rate is lr times the clip factor."),
                Caution("random_scale", 1, "Randomly scaled steps: the effective rate is lr times the random factor."),
            ),
        ),
        Claim(
            name="does not keep growing",
            at_most=0,
            over="trend",
            says="The mean of the largest curvature of the minibatch losses along the steps of the second half of the "
            "run is not above that of the first half. Whole model, Euclidean norm.",
            caveat="Growth refutes one constant that is tight along the path, not smoothness with a larger constant. "
            "On a linear loss it is 0, whatever the noise.",
        ),
    ),
    caveats=(
        "The largest at the points of the step that were asked; between them it may be larger. It majorises the loss "
        "on the whole step, where directional_smoothness does so at its end alone.",
        "Unlike smoothness it tells an edge of stability from kinks: at a kink it grows as 1/s towards the kink.",
    ),
)
