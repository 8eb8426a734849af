"""Update correlation at a reference point: do steps descend there?"""

from analysis.columns import Units, gy_gy, u_vector
from analysis.columns_of_replays import gy_step, made_made
from analysis.metric import Claim, Metric
from analysis.rounding import GRADIENT_ERRORS
from analysis.series import cumulative, exponential_mean, running_mean

metric = Metric(
    name="reference_update_correlation",
    family="D",
    catalogue=("D8",),
    title="Update correlation at a reference point",
    paper="After Tran, Zhang, Cutkosky (2024), arXiv:2407.01825, section 4.2, eq. 9, at an averaged point as readers "
    "asked for",
    formula="⟨∇f(x_r, z_t), x_t − x_{t−1}⟩",
    units=Units(loss=1),
    value=gy_step,
    pairings=("reference",),
    blocks="share",
    tolerance=GRADIENT_ERRORS * u_vector * (gy_gy * made_made).sqrt(),
    series=(running_mean(), exponential_mean(0.99), cumulative()),
    claims=(
        Claim(
            name="negative on average",
            at_most=0,
            over="on average",
            null_value=0.0,
            population=True,
            says="Seen from the reference point the steps descend: ⟨∇f(x_r, z_t), x_t − x_{t−1}⟩ is at most 0 on "
            "average over the recorded steps. Population: the step does not depend on z_t; it depends on no norm.",
            caveat="A reference that is made of the run depends on every z_t, later ones included, so that the "
            "minibatch is not fresh for it; a run of another seed is. At a minimiser of the population loss the mean "
            "is 0 whatever the steps. A positive mean does not refute convexity.",
        ),
    ),
    caveats=(
        "update_correlation takes the gradient at the end of the step itself. At an averaged point the noise of single "
        "steps is gone.",
        "A block's value is its exact share of the model's.",
    ),
)
