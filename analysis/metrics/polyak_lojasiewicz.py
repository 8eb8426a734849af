"""The Polyak–Łojasiewicz inequality with 0 for the smallest loss."""

from analysis.columns import Units, ga_ga, ga_gb, gb_gb, loss_x, u_vector
from analysis.metric import Claim, Metric
from analysis.rounding import GRADIENT_ERRORS, loss_errors
from analysis.series import exponential_mean, running_mean

_mu = (ga_gb + 0 * loss_x) / (2 * loss_x)  # an infinite loss gives no ratio
_rounding = GRADIENT_ERRORS * u_vector * (ga_ga * gb_gb).sqrt()

metric = Metric(
    name="polyak_lojasiewicz",
    family="B",
    catalogue=("B14",),
    title="Polyak–Łojasiewicz constant of each step, smallest loss 0",
    paper="Polyak–Łojasiewicz inequality, Karimi, Nutini, Schmidt (2016), arXiv:1608.04636",
    formula="⟨g_a, g_b⟩ / (2 f(x)), g_a and g_b of the two halves of z_t",
    units=Units(loss=1, distance=-2),
    value=_mu,  # ≥ μ, up to the noise of the halves
    blocks="no",
    ratio=(ga_gb, 2 * loss_x),
    tolerance=(_rounding + loss_errors(loss_x.abs(), squares=1) * _mu.abs()) / loss_x.abs(),
    series=(running_mean(), exponential_mean(0.99)),
    claims=(
        Claim(
            name="a gradient wherever there is loss",
            at_least=0,
            over="ratio",
            numerator=ga_gb,
            denominator=2 * loss_x,
            tolerance=_rounding,
            null_value=0.0,
            population=True,
            says="The squared gradient norm of the population loss is some multiple 2μ ≥ 0 of the loss, summed over "
            "all recorded steps: Σ⟨g_a, g_b⟩ / Σ 2f. Whole model, Euclidean norm; the smallest loss is taken for 0.",
            caveat="E⟨g_a, g_b⟩ = ‖∇F‖² is never negative, so that FAILS would refute the independence of the halves; "
            "HOLDS says that the gradient is resolved from 0, the estimate how large μ is on the whole. It is not a "
            "lower bound at every step.",
        ),
        Claim(
            name="does not fall",
            at_least=0,
            over="trend",
            population=True,
            says="The Polyak–Łojasiewicz constant of the population loss, smallest loss 0, is on average over the "
            "second half of the run not below that over the first half. Whole model, Euclidean norm.",
            caveat="A fall refutes one constant that is tight all along the path, not the inequality with a smaller "
            "one. Where the loss has a floor above 0 the constant falls to 0 as the gradient vanishes there: "
            "polyak_lojasiewicz_to_reference takes the loss of a reference point for the floor.",
        ),
    ),
    caveats=(
        "‖g‖² of a minibatch would be larger by tr Σ and is never used: half batches are needed.",
        "Single values are noise of the halves and may be negative; read windows, sum over sum. The minibatch's loss "
        "is correlated with its gradient.",
    ),
)
