"""Directional smoothness: the constant with which a quadratic bound at y meets the loss at x."""

from analysis.columns import Units, d_d, gy_d, loss_x, loss_y, lr_d, value
from analysis.metric import Caution, Claim, Metric
from analysis.rounding import forward_difference_rounding
from analysis.series import exponential_mean, running_max

_rounding = 2 * forward_difference_rounding / d_d

metric = Metric(
    name="directional_smoothness",
    family="C",
    catalogue=("C4",),
    title="Directional smoothness of each step",
    paper="Mishkin et al. (2024), arXiv:2403.04081, the optimal point-wise H(x, y)",
    formula="2 |f(x) − f(y) − ⟨∇f(y), x − y⟩| / ‖x − y‖²",
    units=Units(loss=1, distance=-2),
    value=2 * (loss_x - loss_y - gy_d).abs() / d_d,  # ≤ L wherever the gradient is L-Lipschitz
    tolerance=_rounding,
    pairings=("previous", "next"),
    blocks="no",
    series=(running_max(), exponential_mean(0.99)),
    claims=(
        Claim(
            name="adapted steps",
            at_most=2,
            over="quantile",
            at_quantile=0.99,
            quantity=value * lr_d,
            tolerance=_rounding * lr_d,
            pairings=("next",),
            optimizers=("SGD",),
            optimizers_why="a step is adapted if lr < 2/H, which speaks of steps lr times the gradient",
            says="At 99 % of the recorded steps the learning rate is adapted: lr times the directional smoothness of "
            "the minibatch loss along the step that this minibatch made is at most 2. For plain gradient steps that is "
            "f(x_{t+1}, z_t) ≤ f(x_t, z_t) wherever the loss lies above its tangent. Each minibatch by itself, whole "
            "model, Euclidean norm.",
            caveat="It is about the minibatch that made the step: a fall there is no fall of the population loss, and "
            "a violation does not refute smoothness with a constant above 2/lr. Where the loss lies below its tangent "
            "the step descends whatever the value.",
            cautions=(
                Caution("momentum", 0, "With momentum the step is not lr·g, and the bound 2 does not mean descent."),
                Caution("clip_factor", 1, "Clipping shortens steps: the effective rate is lr times the clip factor."),
                Caution("random_scale", 1, "Randomly scaled steps: the effective rate is lr times the random factor."),
                Caution("weight_decay", 0, "Weight decay is part of the step and not of the gradient."),
            ),
        ),
        Claim(
            name="does not keep growing",
            at_most=0,
            over="trend",
            says="The mean directional smoothness of the minibatch losses in the second half of the run is not above "
            "that of the first half. Whole model, Euclidean norm.",
            caveat="Growth refutes one constant that is tight along the path, not smoothness with a larger constant. "
            "Null value: on a linear loss it is 0 up to rounding, whatever the noise.",
        ),
    ),
    caveats=(
        "On a quadratic with Hessian H it is dᵀHd/‖d‖², the same as the curvature; the local smoothness is at least "
        "it.",
        "It majorises the loss at x alone, not between the two points. A difference of losses is in it: on short steps "
        "in single precision rounding decides, and the curvature ⟨∇f(x) − ∇f(y), d⟩/‖d‖² is the number to read.",
    ),
)
