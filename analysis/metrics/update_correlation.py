"""Update correlation: does the new gradient still point back along the step just made?"""

import polars as pl

from analysis.biases import reshuffling
from analysis.columns import Units, clip_factor, coupled_decay, gx_d, loss_x, loss_y, x_d
from analysis.decay import regularized
from analysis.metric import Claim, Metric, Variant
from analysis.rounding import slope_rounding
from analysis.series import cumulative, exponential_mean, running_mean

metric = Metric(
    name="update_correlation",
    family="D",
    catalogue=("D2",),
    title="Update correlation",
    paper="After Tran, Zhang, Cutkosky (2024), arXiv:2407.01825, section 4.2, eq. 9",
    formula="⟨∇f(x), x − y⟩",
    units=Units(loss=1),
    value=gx_d,  # = loss change − convexity gap
    tolerance=slope_rounding,
    pairings=("previous", "next"),
    blocks="share",
    series=(
        running_mean(),
        exponential_mean(0.99),
        cumulative(title="cumulative update correlation"),
        cumulative("cumulative_loss_change", "cumulative loss change f(x) − f(y)", loss_x - loss_y),
    ),
    variants=(
        Variant(
            "clipped",
            "a script of 2024: the gradient after clipping, ⟨clip · ∇f(x), x − y⟩",
            pl.when(pl.col("pairing").cast(pl.String) != "next").then(
                clip_factor * gx_d
            ),  # no step clipped ∇f(x_{t+1})
        ),
        regularized(pl.when(pl.col("pairing").cast(pl.String) == "previous").then(gx_d + coupled_decay * x_d)),
    ),
    claims=(
        Claim(
            name="negative on average",
            at_most=0,
            over="on average",
            null_value=0.0,
            population=True,
            biases=(reshuffling,),
            says="The new gradient ⟨∇f(x_t, z_t), x_t − x_{t−1}⟩ is at most 0 on average over the recorded steps, as "
            "analyses that rest on the descent lemma expect. Population, fresh minibatches; it depends on no norm.",
            caveat="Null values: 0 for pure noise; on a convex quadratic with curvature h and gradient noise s² "
            "stationary SGD has lr² h s²/(2 − lr h) > 0 with no loss change; noise-free descent has −lr h² e² (1 − "
            "lr h), positive for 1/h < lr < 2/h although the loss falls at every step. A positive value refutes "
            "monotone-descent arguments, not convexity or smoothness. Sampling without replacement biases it up.",
        ),
    ),
    caveats=(
        "Identity: Σ update correlation − Σ loss change = −Σ convexity gap. Update correlation above the loss change "
        "says that the path is convex on average.",
        "In-sample (pairing next) it is lower than on fresh minibatches, by lr tr Σ for SGD, and says nothing of the "
        "population.",
        "Block values are exact shares of the model's.",
    ),
)
