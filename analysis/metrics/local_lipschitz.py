"""Local Lipschitz constant: how much the loss changes per step length."""

from analysis.columns import Units, d_d, gx_gx, loss_x, loss_y
from analysis.metric import Claim, Metric, Variant
from analysis.rounding import loss_rounding
from analysis.series import exponential_mean, running_max

_slope = (loss_x - loss_y).abs() / d_d.sqrt()

metric = Metric(
    name="local_lipschitz",
    family="C",
    catalogue=("C13",),
    title="Local Lipschitz constant of each step",
    paper="The constant G of analyses of non-smooth losses, as in Zhang and Cutkosky (2024), arXiv:2405.09742",
    formula="|f(x) − f(y)| / ‖x − y‖",
    units=Units(loss=1, distance=-1),
    value=_slope,  # ≤ G wherever the loss is G-Lipschitz
    tolerance=loss_rounding / d_d.sqrt(),
    pairings=("previous", "next"),
    blocks="no",
    series=(running_max(), exponential_mean(0.99)),
    variants=(Variant("gradient_norm", "‖∇f(x)‖, the constant at the point itself", gx_gx.sqrt()),),
    claims=(
        Claim(
            name="does not keep growing",
            at_most=0,
            over="trend",
            says="The mean change of the minibatch losses per step length in the second half of the run is not above "
            "that of the first half. Whole model, Euclidean norm.",
            caveat="Growth refutes one constant that is tight along the path, not a larger one. Steps across the slope "
            "have a small value however steep the loss is: it is a lower bound.",
        ),
        Claim(
            name="gradient norm does not keep growing",
            at_most=0,
            over="trend",
            quantity=gx_gx.sqrt(),
            says="The mean norm of the minibatch gradients in the second half of the run is not above that of the "
            "first half. Whole model, Euclidean norm.",
            caveat="Null value: noise alone gives √(tr Σ), which grows where minibatches shrink. Growth does not "
            "refute a larger constant G, and no growth does not make the loss smooth.",
        ),
    ),
    caveats=(
        "At most the largest gradient norm on the step; on a convex loss at most the larger one of its two ends.",
        "On fresh minibatches noise raises it: the mean is not the population's.",
    ),
)
