"""Descent term: the change of loss that the gradient promised before the step was made."""

from analysis.biases import in_sample, reshuffling
from analysis.columns import Units, gy_d
from analysis.metric import Claim, Metric
from analysis.rounding import slope_at_y_rounding
from analysis.series import cumulative, exponential_mean, running_mean

metric = Metric(
    name="descent_term",
    family="D",
    catalogue=("D1",),
    title="Descent term of each step",
    paper="The first-order term of the descent lemma, f(x) ≤ f(y) + ⟨∇f(y), x − y⟩ + L/2 ‖x − y‖²; Tran, Zhang, "
    "Cutkosky (2024), arXiv:2407.01825, section 4.2",
    formula="⟨∇f(y), x − y⟩",
    units=Units(loss=1),
    value=gy_d,  # ≤ 0 for a step downhill
    tolerance=slope_at_y_rounding,
    pairings=("previous", "next"),
    blocks="share",
    series=(running_mean(), exponential_mean(0.99), cumulative(title="cumulative descent term")),
    claims=(
        Claim(
            name="downhill on average",
            at_most=0,
            over="on average",
            null_value=0.0,
            pairings=("previous",),
            population=True,
            biases=(reshuffling,),
            says="Steps go downhill for the population loss: ⟨∇f(x_{t−1}, z_t), x_t − x_{t−1}⟩, on a minibatch that "
            "did not make the step, is at most 0 on average over the recorded steps. It depends on no norm.",
            caveat="Null values: 0 for pure noise; SGD at rest on a noisy convex quadratic of curvature h has "
            "−lr² h s²/(2 − lr h) < 0 with no loss change. So a negative mean does not say that the loss falls, and "
            "a positive one refutes descent, not convexity or smoothness.",
        ),
        Claim(
            name="downhill on its own minibatch",
            at_most=0,
            over="on average",
            pairings=("next",),
            biases=(in_sample,),
            says="Steps go downhill for the minibatch that made them: ⟨∇f(x_t, z_t), x_{t+1} − x_t⟩ is at most 0 on "
            "average over the recorded steps, each minibatch by itself. It depends on no norm.",
            caveat="For SGD without momentum and weight decay it is −lr ‖g_t‖² and cannot fail. Noise alone gives "
            "−lr tr Σ, so a negative value does not say that the population loss falls.",
        ),
    ),
    caveats=(
        "Fresh and in-sample differ: for SGD the in-sample value is lower by lr tr Σ.",
        "Block values are exact shares of the model's.",
    ),
)
