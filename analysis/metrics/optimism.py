"""One-step optimism: how much better a step looks on the minibatch that made it than on a fresh one."""

from analysis.columns import Units, loss_change_d, loss_x, loss_y, noise_rate_d, value
from analysis.metric import Caution, Claim, Metric
from analysis.noise import minibatch_noise
from analysis.rounding import loss_rounding
from analysis.series import cumulative, exponential_mean, running_mean

_from_halves = noise_rate_d * minibatch_noise

metric = Metric(
    name="optimism",
    family="D",
    catalogue=("D11",),
    title="One-step optimism",
    paper="The in-sample bias of a step, as in Mallows' Cp and Efron's optimism, for one step of SGD",
    formula="(f(x_t, z_t) − f(x_{t−1}, z_t)) − (f(x_t, z_{t−1}) − f(x_{t−1}, z_{t−1}))",
    units=Units(loss=1),
    value=(loss_x - loss_y) - loss_change_d,  # = lr tr Σ on average, for SGD
    tolerance=2 * loss_rounding,
    blocks="no",
    series=(running_mean(), exponential_mean(0.99), cumulative(title="cumulative optimism")),
    claims=(
        Claim(
            name="steps look better on their own minibatch",
            at_least=0,
            over="on average",
            null_value=0.0,
            says="The loss of the minibatch that made the step falls by at least as much as that of a fresh one, on "
            "average over the recorded steps. Population minus minibatch loss; it depends on no norm.",
            caveat="Null value: 0 for full-batch training, where both are one loss; pure noise gives lr tr Σ, always "
            "above 0. A negative mean does not speak of the loss's shape: it means that minibatches repeat or were "
            "mixed up.",
        ),
        Claim(
            name="equals lr tr Σ",
            at_most=0,
            over="equivalent",
            quantity=value - _from_halves,
            margin=0.1 * _from_halves.mean().abs(),
            null_value=0.0,
            optimizers=("SGD",),
            optimizers_why="only there the step carries the noise of its gradient with the factor lr",
            says="The optimism is lr tr Σ, tr Σ from the two halves of each minibatch: their difference is 0 on "
            "average over the recorded steps, within 10 % of lr tr Σ. lr is what the step puts on its gradient: times "
            "1 − dampening, or 1 + b with Nesterov's momentum b, the clip factor and the random scale. Population, "
            "fresh against own minibatch; it depends on no norm.",
            caveat="Exact where the noise of the gradient does not depend on the point; curvature that varies between "
            "minibatches adds terms of second order in lr. A difference does not refute smoothness or convexity.",
            cautions=(
                Caution(
                    "clip_factor",
                    1,
                    "Clipped gradients enter the step by the clip factor, which depends on the noise itself.",
                ),
            ),
        ),
    ),
    caveats=("A measure of gradient noise from losses alone: divided by lr it estimates tr Σ of SGD's minibatches.",),
)
