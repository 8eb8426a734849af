"""The slope towards a reference point: the numerator of the convexity ratio, which needs no loss at the reference."""

import polars as pl

from analysis.columns import Units, gx_d
from analysis.decay import decay_slope, regularized
from analysis.metric import Claim, Metric
from analysis.noise import noise_of_reference
from analysis.rounding import slope_rounding
from analysis.series import cumulative, exponential_mean, running_mean

metric = Metric(
    name="reference_slope",
    family="B",
    catalogue=("B2", "B6"),
    title="Slope towards a reference point",
    paper="The left side of every one-sided condition (star-, quasar-, one-point convexity)",
    formula="⟨∇f(x), x − x_r⟩",
    units=Units(loss=1),
    value=gx_d,
    pairings=("reference",),
    blocks="share",
    tolerance=slope_rounding,
    series=(running_mean(), exponential_mean(0.99), cumulative()),
    variants=(regularized(gx_d + decay_slope),),
    claims=(
        Claim(
            name="descent directions lead there on average",
            at_least=0,
            over="on average",
            null_value=0.0,
            population=True,
            biases=(noise_of_reference(pl.lit(1.0)),),
            says="The negative gradient of the population loss leads towards the reference point: the mean slope over "
            "the recorded steps is at least 0. It depends on no norm.",
            caveat="For the last point of plain SGD with a constant rate it is true of any gradients, even of noise: "
            "Σ⟨g, x − x_T⟩ = ‖x_0 − x_T‖²/(2 lr) + lr Σ‖g‖²/2 (R4). Only the comparison with the loss difference, as "
            "in convexity_ratio, or a reference made without this run, says something about the loss. A negative mean "
            "does not refute convexity: f(x_r) may be the higher loss.",
        ),
    ),
    caveats=(
        "For Adam noise alone gives about lr Σ_i σ_i a step, which grows with the number of parameters.",
        "A block's value is its exact share of the model's.",
    ),
)
