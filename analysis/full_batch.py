"""At which steps the minibatch was the whole data set: what theory says of gradient descent applies to those."""

import polars as pl

from analysis.columns import gx_gx, loss_x
from analysis.columns_of_replays import full_gg, full_loss
from analysis.rounding import loss_errors

_ALIKE = 1e-3  # of ‖g‖²; on minibatches it is off by tr Σ, as large as ‖∇F‖² itself
_same_loss = (full_loss - loss_x).abs() <= loss_errors(loss_x.abs())
_same_gradient = (full_gg - gx_gx).abs() <= _ALIKE * gx_gx
_plain = (pl.col("momentum") == 0) & (pl.col("weight_decay") == 0)

plain_descent: pl.Expr = _plain & _same_loss & _same_gradient
"""Where the recorded loss and gradient are those of the whole data set, without momentum and weight decay."""
