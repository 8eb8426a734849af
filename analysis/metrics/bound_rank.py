"""Does the loss rise and fall when the bound of convex theory does?"""

import polars as pl

from analysis.columns import Units, fitted_distance, fitted_gradient, rate_agreement, u_loss, value
from analysis.metric import Claim, Metric
from analysis.series import Series, running_mean

_there = value.is_finite()

metric = Metric(
    name="bound_rank",
    family="G",
    catalogue=("G3",),
    title="Rank correlation of the loss with the last-iterate bound",
    paper="Defazio et al. (2023), arXiv:2310.07831, Theorem 10; Schaipp et al. (2025), arXiv:2501.18965, who hold that "
    "bound beside losses",
    formula="r_t q_t, the standardised ranks of f(x_t) and of D² S1 + G² S2 among the steps of the run; the mean is "
    "Spearman's correlation",
    units=Units(),
    value=rate_agreement,
    blocks="no",
    tolerance=50 * u_loss * rate_agreement.abs(),
    series=(
        running_mean(),
        Series("d_of_the_fit", "D of the fit", pl.when(_there).then(fitted_distance), role="beside"),
        Series("g_of_the_fit", "G of the fit", pl.when(_there).then(fitted_gradient), role="beside"),
    ),
    claims=(
        Claim(
            name="rises and falls with the bound",
            at_least=0,
            over="on average",
            null_value=0.0,
            within=(-1.0, 1.0),
            says="The minibatch losses and the last-iterate bound of convex theory, D² S1 + G² S2 with D and G fitted "
            "to the losses of the first half, agree in their order: their rank correlation (Spearman) over the "
            "recorded steps is at least 0. It depends on no norm.",
            caveat="Any two curves that fall agree, so that a positive correlation does not support convexity; "
            "warm-ups, restarts and decays tell more, and so does convex_dominance, which asks for the shape. Noise of "
            "minibatches lowers it. A negative one does not refute convexity: a bound only bounds. It is stated for "
            "SGD; for other optimizers it is an analogy that was observed.",
        ),
    ),
    caveats=(
        "The order depends on the fit through G/D alone. Fitted D and G need not be the run's own distance and largest "
        "gradient; with those, the bound over what was observed is the end of the proof sgd_last_iterate.",
        "Where the fitted curve ends no lower than it began, as that of a loss that only rises, nothing is said. The "
        "interval is shown cut off at −1 and 1.",
    ),
)
