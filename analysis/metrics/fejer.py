"""Does every step come closer to a reference point?"""

from analysis.columns import Units, d_ahead, d_d, step_step, u_vector, x_x
from analysis.metric import Claim, Metric
from analysis.series import cumulative, exponential_mean, running_mean

metric = Metric(
    name="fejer",
    family="B",
    catalogue=("B12",),
    title="Change of the squared distance to a reference point",
    paper="Fejér monotonicity: gradient descent with a small rate on convex losses never moves away from a minimiser",
    formula="‖x_{t+1} − x_r‖² − ‖x_t − x_r‖² = 2⟨x_t − x_r, x_{t+1} − x_t⟩ + ‖x_{t+1} − x_t‖²",
    units=Units(distance=2),
    value=2 * d_ahead + step_step,
    pairings=("reference",),
    blocks="share",
    tolerance=4 * u_vector * (x_x * d_d).sqrt(),  # x_{t+1} was rounded when it was stored
    series=(running_mean(), exponential_mean(0.99), cumulative()),
    claims=(
        Claim(
            name="closer at every step",
            at_most=0,
            null_value=0.0,
            says="No step of the path leads away from the reference point, as in gradient descent on convex losses "
            "with a small rate, or on interpolating minibatches: the change of the squared distance is at most 0 at "
            "every recorded step. Whole model, Euclidean norm.",
            caveat="Noise in the gradient lengthens every distance by ‖step‖², so near the reference stochastic steps "
            "lead away about as often as not: one of them does not refute convexity of the population loss.",
        ),
        Claim(
            name="mostly closer",
            at_most=0.5,
            over="share",
            null_value=0.0,
            says="At most half of the recorded steps lead away from the reference point, on minibatches as they came. "
            "Whole model, Euclidean norm.",
            caveat="Pure noise leads away from every fixed point at a little more than half of its steps, but towards "
            "its own last point at many: the share does not by itself support any property of the loss, compare the "
            "negative controls.",
        ),
    ),
    caveats=(
        "The sum over a run is ‖x_T − x_r‖² − ‖x_0 − x_r‖²: its mean is negative for the last point by construction.",
        "Geometry of the path alone: no loss and no gradient is read.",
    ),
)
