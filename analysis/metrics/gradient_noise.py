"""How much of the gradient is noise of the minibatch."""

from analysis.columns import Units, ga_ga, gb_gb, u_vector
from analysis.metric import Claim, Metric
from analysis.noise import minibatch_noise
from analysis.rounding import GRADIENT_ERRORS
from analysis.series import exponential_mean, running_mean

metric = Metric(
    name="gradient_noise",
    family="F",
    catalogue=("F2",),
    title="Variance of the minibatch gradient",
    paper="Bounded-variance assumption E‖g − ∇F‖² ≤ σ²; McCandlish et al. (2018), arXiv:1812.06162, appendix A",
    formula="‖g_a − g_b‖² / 4, g_a and g_b of the two halves of z_t",
    units=Units(loss=2, distance=-2),
    value=minibatch_noise,  # unbiased for tr Σ of g = (g_a + g_b)/2
    blocks="share",
    tolerance=GRADIENT_ERRORS * u_vector * (ga_ga + gb_gb) / 2,
    series=(running_mean(), exponential_mean(0.99)),
    claims=(
        Claim(
            name="does not keep growing",
            at_most=0,
            over="trend",
            says="The variance of the minibatch gradient around the population's, E‖g − ∇F‖², is on average over the "
            "second half of the run not above that over the first half. Whole model, Euclidean norm.",
            caveat="Growth refutes one constant variance bound that is tight all along the path, not a bound with a "
            "larger constant. Batches that change in size change it too.",
        ),
    ),
    caveats=(
        "Of the whole minibatch: times the number of examples in it, it is tr Σ of single examples.",
        "Exactly ‖(g_a + g_b)/2‖² − ⟨g_a, g_b⟩. Batch normalisation makes the halves gradients of other functions.",
    ),
)
