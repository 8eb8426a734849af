"""Stationarity in windows: the length of the mean gradient of 100 steps."""

import polars as pl

from analysis.columns import Units, gx_gx, u_vector, value, wcount, wmove_wmove, wsum_wsum
from analysis.metric import Bias, Claim, Metric
from analysis.noise import minibatch_noise
from analysis.rounding import GRADIENT_ERRORS
from analysis.series import Series, exponential_mean, running_mean

STEPS = 100
_norm = wsum_wsum.sqrt() / STEPS
_floor = (minibatch_noise.mean() / STEPS).sqrt()
_whole = wcount == STEPS
_known = minibatch_noise.fill_nan(None)
_moved = wmove_wmove.fill_nan(None).sqrt()
_window = pl.col("step") // STEPS  # a whole window begins at a multiple
_noise_so_far = _known.cum_sum().forward_fill() / _known.is_not_null().cum_sum()


metric = Metric(
    name="window_gradient",
    family="E",
    catalogue=("E3",),
    title="Norm of the mean gradient of 100 steps",
    paper="Cutkosky, Mehta, Orabona (2023), arXiv:2302.03775; Zhang and Cutkosky (2024), arXiv:2405.09742",
    formula="‖Σ g_s‖ / 100 over a window of 100 steps, at its last step",
    units=Units(loss=1, distance=-1),
    value=pl.when(_whole).then(_norm),
    tolerance=GRADIENT_ERRORS * u_vector * gx_gx.sqrt(),
    series=(
        running_mean(),
        exponential_mean(0.9),
        Series(
            "noise_floor",
            "what noise alone gives, √(tr Σ / 100), tr Σ the mean so far",
            pl.when(value.is_finite()).then((_noise_so_far / STEPS).sqrt()),
        ),
        Series("radius", "how far the window moved, ‖x_t − x_s‖", pl.when(value.is_finite()).then(wmove_wmove.sqrt())),
        Series(
            "radius_most",
            "max ‖x_t − x̄‖ of the window is at most this, max ‖x_t − x_s‖ + mean ‖x_t − x_s‖, and at least a quarter",
            pl.when(value.is_finite()).then((_moved.max() + _moved.sum() / STEPS).over(_window)),
            role="beside",
        ),
    ),
    claims=(
        Claim(
            name="does not grow",
            at_most=0,
            over="trend",
            biases=(
                Bias(
                    rule="noise",
                    says="Noise alone gives windows √(tr Σ/100), tr Σ from the halves of the minibatches; what lies "
                    "above is gradient. It cancels from a trend only where the noise stays the same.",
                    amount=_floor,
                ),
            ),
            says="The norm of the mean gradient over windows of 100 recorded steps is, on average over the second half "
            "of the run, not above that of the first half: the path does not leave stationarity. Raw minibatch "
            "gradients, Euclidean norm.",
            caveat="Null value: √(tr Σ/100) from noise alone; below it no stationarity can be seen. Stationarity in a "
            "window says something of a point only where the window is small (see the radius). Growth does not refute "
            "convexity or smoothness.",
        ),
    ),
    caveats=(
        "One value per window of 100 steps, at its last step; windows cut by a gap have none.",
        "Goldstein-type: small gradients may be averaged out of large ones of opposite sign, as around a kink.",
    ),
)
