"""Local smoothness: how fast the gradient changes along each step."""

from dataclasses import replace

from analysis.columns import Units, coupled_decay, d_d, d_norms, dg_d, dg_dg, dg_norms, lr_d, value
from analysis.decay import regularized
from analysis.metric import Caution, Claim, Metric, Variant
from analysis.rounding import gradient_difference_rounding
from analysis.series import exponential_mean, limit, running_max, zero_start_mean

_smoothness = (dg_dg / d_d).sqrt()
_rounding = gradient_difference_rounding / d_d.sqrt()
_BELOW = "below 2/lr"
_defined = value.fill_nan(None).drop_nulls()
_zero_start = _defined.ewm_mean(alpha=0.01).last() * (1 - 0.99 ** _defined.len())  # as if zeros came before

_below = Claim(
    name=_BELOW,
    at_most=2,
    quantity=value * lr_d,
    tolerance=_rounding * lr_d,
    optimizers=("SGD",),
    optimizers_why="the learning rate is a Euclidean step length per gradient only in gradient descent",
    says="Local smoothness times the learning rate that made the step is at most 2 at every recorded step, as "
    "the descent lemma of plain gradient descent needs. Each minibatch by itself, whole model, Euclidean norm.",
    caveat="The local value is a lower bound for the minibatch loss's smoothness on the step, so a value above "
    "2/lr means the descent lemma promises no descent there; the loss may fall all the same. A kink obeys the "
    "same law: on f = |x| with constant steps the value is 2/lr at every crossing, so values near 2/lr do not "
    "tell an edge of stability from kinks.",
    cautions=(
        Caution(
            "momentum",
            0,
            "With momentum b the step is not lr·g: the stability limit of full-batch "
            "quadratics is 2(1+b)/lr (heavy ball), so a value above 2/lr does not mean instability.",
        ),
        Caution("clip_factor", 1, "Clipping shortens steps: the effective rate is lr times the clip factor."),
        Caution("random_scale", 1, "Randomly scaled steps: the effective rate is lr times the random factor."),
        Caution("weight_decay", 0, "Weight decay is part of the step and not of the gradient."),
    ),
)

metric = Metric(
    name="smoothness",
    family="C",
    catalogue=("C1",),
    title="Local smoothness of each step",
    paper="After Tran, Zhang, Cutkosky (2024), arXiv:2407.01825, section 4, eq. 4; half of Mishkin et al. (2024), "
    "arXiv:2403.04081, eq. 4",
    formula="‖∇f(x) − ∇f(y)‖ / ‖x − y‖",
    units=Units(loss=1, distance=-2),
    value=_smoothness,  # ≤ L wherever the gradient is L-Lipschitz
    tolerance=_rounding,
    pairings=("previous", "next"),
    series=(
        running_max(),
        exponential_mean(0.99),
        exponential_mean(0.9999, "long_exponential_mean", role="beside"),
        zero_start_mean(),
        limit("two_over_lr", "2 / lr", 2 / lr_d, claim=_BELOW),
    ),
    variants=(
        Variant("mishkin", "Mishkin et al. (2024), eq. 4: twice the value", 2 * _smoothness),
        Variant(
            "authors_2023",
            "the authors' scripts of 2023: sums over the tensors of both norms, largest of the window",
            dg_norms / d_norms,
            summary=_defined.max(),
        ),
        Variant(
            "authors_2023_mean",
            "the authors' scripts of 2023: exponential mean of the same, factor 0.99, from zero, not corrected",
            dg_norms / d_norms,
            summary=_zero_start,
        ),
        regularized(((dg_dg + 2 * coupled_decay * dg_d + coupled_decay**2 * d_d) / d_d).sqrt()),
    ),
    claims=(
        Claim(
            name="does not keep growing",
            at_most=0,
            over="trend",
            says="The mean local smoothness of the minibatch losses along the steps of the second half of the run is "
            "not above that of the first half. Whole model, Euclidean norm.",
            caveat="Growth refutes one constant that is tight all along the path, not smoothness with a larger "
            "constant. No growth bounds nothing off the path. Noise of the Hessian biases the value up.",
        ),
        _below,
        replace(
            _below,
            name="below 2/lr at 99 % of the steps",
            over="quantile",
            at_quantile=0.99,
            says="At 99 % of the recorded steps local smoothness times the learning rate that made the step is at most "
            "2. Each minibatch by itself, whole model, Euclidean norm.",
        ),
    ),
    caveats=(
        "Per block the value follows the whole trajectory: the other blocks move too.",
        "A lower bound for the largest Hessian norm on the step. On minibatches it is biased up for the population.",
        "Unpaired minibatches give √2/lr for SGD where noise dominates, √(2(1−b²))/lr with momentum b, whatever the "
        "smoothness: a law of the noise, not of the loss.",
        "The sum of tensor norms over the sum of tensor norms lies between the tensors' own ratios. It is no Lipschitz "
        "constant in any norm.",
    ),
)
