"""The Polyak–Łojasiewicz inequality on the whole data, with 0 for the smallest loss."""

from analysis.columns import Units, u_vector
from analysis.columns_of_replays import full_gg, full_least, full_loss
from analysis.metric import Claim, Metric, Variant
from analysis.rounding import GRADIENT_ERRORS, loss_errors
from analysis.series import exponential_mean, running_mean

_mu = full_gg / (2 * full_loss)

metric = Metric(
    name="polyak_lojasiewicz_full",
    family="B",
    catalogue=("B14",),
    title="Polyak–Łojasiewicz constant on the whole data, smallest loss 0",
    paper="Polyak–Łojasiewicz inequality, Karimi, Nutini, Schmidt (2016), arXiv:1608.04636",
    formula="‖∇F(x_t)‖² / (2 F(x_t))",
    units=Units(loss=1, distance=-2),
    value=_mu,  # ≥ μ
    blocks="no",
    ratio=(full_gg, 2 * full_loss),
    tolerance=(2 * GRADIENT_ERRORS * u_vector + loss_errors(full_loss.abs(), squares=1) / full_loss.abs()) * _mu.abs(),
    series=(running_mean(), exponential_mean(0.99)),
    variants=(
        Variant(
            "above_the_lowest",
            "with the lowest F that was replayed for the smallest loss; it has no value there",
            full_gg / (2 * (full_loss - full_least)),
        ),
    ),
    claims=(
        Claim(
            name="does not fall",
            at_least=0,
            over="trend",
            says="The Polyak–Łojasiewicz constant of the population loss, smallest loss 0, is on average over the "
            "second half of the run not below that over the first half. Whole model, Euclidean norm.",
            caveat="A fall refutes one constant that is tight all along the path, not the inequality with a smaller "
            "one. Where the loss has a floor above 0 it falls to 0 as the gradient vanishes there: the variant takes "
            "the lowest loss of the run for the floor.",
        ),
    ),
    caveats=(
        "Unbiased, unlike ‖g‖² of a minibatch, which is larger by tr Σ.",
        "How far the two choices of the smallest loss are apart says how much the constant depends on it.",
    ),
)
