"""Descent rate: how often the loss rises on a fresh minibatch."""

import polars as pl

from analysis.columns import Units, loss_x, loss_y
from analysis.metric import Claim, Metric
from analysis.rounding import loss_rounding
from analysis.series import exponential_mean, running_mean

_change = loss_x - loss_y

metric = Metric(
    name="descent_rate",
    family="D",
    catalogue=("D12",),
    title="Share of steps on which the loss rises",
    paper="Monotone descent, which the descent lemma promises for lr < 2/L; see Tran, Zhang, Cutkosky (2024), "
    "arXiv:2407.01825, section 4.2",
    formula="1 if f(x) − f(y) > rounding, else 0",
    units=Units(),
    value=(_change > loss_rounding).cast(pl.Float64) + 0 * _change,  # a loss that is no number stays none
    tolerance=pl.lit(0.0),
    pairings=("previous", "next"),
    blocks="no",
    series=(running_mean(), exponential_mean(0.99)),
    claims=(
        Claim(
            name="falls more often than it rises",
            at_most=0.5,
            over="share",
            quantity=_change,
            tolerance=loss_rounding,
            null_value=0.5,
            says="The minibatch loss rises, by more than rounding, along at most half of the recorded steps. Each "
            "minibatch by itself: fresh ones for pairs with the previous point, the one that made the step in-sample. "
            "It depends on no norm.",
            caveat="Null value: 1/2 on fresh minibatches, for pure noise and for a run at rest. A share above 1/2 does "
            "not say that the loss rises on average: few large falls may outweigh many small rises.",
        ),
        Claim(
            name="falls at every step",
            at_most=0,
            quantity=_change,
            tolerance=loss_rounding,
            pairings=("next",),
            says="The loss of the minibatch that made the step falls at every recorded step, as the descent lemma "
            "promises of gradient steps with lr < 2/L. Each minibatch by itself; it depends on no norm.",
            caveat="One rise refutes lr < 2/L for that minibatch on that step, or that the step follows its gradient; "
            "it does not refute smoothness, nor descent of the population loss.",
        ),
    ),
    caveats=("In-sample a fall is what the step was made for; only fresh minibatches speak of the population.",),
)
