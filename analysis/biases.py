"""Known amounts by which an estimate is off because of how minibatches come, to be printed beside it."""

import polars as pl

from analysis.columns import gx_gx, noise_rate_d
from analysis.metric import Bias
from analysis.noise import minibatch_noise

_step = pl.col("step")
_momentum = pl.col("momentum")  # only SGD has it: for other optimizers the step is not lr · g, and neither amount holds
_pushed = noise_rate_d / (1 + pl.col("nesterov") * _momentum)  # all steps that a gradient enters: this over 1 − b
_first, _last = (pl.when(pl.col("epoch").is_not_null()).then(end.over("epoch")) for end in (_step.min(), _step.max()))
_apart = _first.sort().diff()  # first steps of epochs: right for plans that record some steps only, too
_epoch_length = pl.max_horizontal((_last - _first).max() + 1, _apart.filter(_apart > 0).median())

reshuffling = Bias(
    rule="R7",
    says="If epochs go through the data without replacement, minibatches of one epoch repel each other, and SGD's step "
    "meets the next gradient lr tr Σ / ((1 − momentum)(n − 1)) too high, n being the minibatches of an epoch (by the "
    "numbers of the recorded steps). Nothing where minibatches are drawn independently.",
    amount=pl.when(_epoch_length > 1).then(
        (_pushed * minibatch_noise).mean() / ((1 - _momentum.mean()) * (_epoch_length - 1).cast(pl.Float64))
    ),
)
"""R7, for the loss change, ⟨∇f(x), d⟩ and ⟨∇f(y), d⟩ of fresh pairs; exact for SGD without momentum."""

in_sample = Bias(
    rule="R2",
    says="On the minibatch that made the step, SGD's value is lower than the population's by lr tr Σ: the step went "
    "down the noise of its own gradient. lr is taken times 1 − dampening, with Nesterov's momentum b times 1 + b, and "
    "times the clip factor.",
    amount=-(noise_rate_d * minibatch_noise).mean(),
)
"""R2, for in-sample pairs; for the loss change and ⟨∇f(x), d⟩ it is exact where the noise does not depend on x."""

reshuffled_cosine = Bias(
    rule="R7",
    says="If epochs go through the data without replacement, gradients of one epoch repel each other: the cosine of "
    "pure noise is −1/(n − 1), n being the minibatches of an epoch (counted among the recorded steps).",
    amount=pl.when(_epoch_length > 1).then(
        -minibatch_noise.mean() / gx_gx.mean() / (_epoch_length - 1).cast(pl.Float64),
    ),
)
"""R7 for the cosine of consecutive gradients: −1/(n − 1) times the share of noise in ‖g‖²."""
