"""Signal-to-noise: the share of the minibatch gradient's energy that is the population's gradient."""

from analysis.columns import Units, ga_ga, ga_gb, gb_gb, u_vector
from analysis.metric import Claim, Metric
from analysis.rounding import GRADIENT_ERRORS
from analysis.series import exponential_mean, running_mean

_energy = (ga_ga + gb_gb + 2 * ga_gb) / 4  # ‖(g_a + g_b)/2‖², of the halves themselves

metric = Metric(
    name="snr",
    family="F",
    catalogue=("F3",),
    title="Share of signal in the minibatch gradient",
    paper="With independent halves E⟨g_a, g_b⟩ = ‖∇F‖² and E‖g‖² = ‖∇F‖² + tr Σ",
    formula="⟨g_a, g_b⟩ / ‖(g_a + g_b)/2‖², g_a and g_b of the two halves of z_t",
    units=Units(),
    value=ga_gb / _energy,  # in (−∞, 1], 1 without noise
    blocks="trajectory",
    ratio=(ga_gb, _energy),
    tolerance=GRADIENT_ERRORS * u_vector * (ga_ga + gb_gb) / _energy,
    series=(running_mean(), exponential_mean(0.99)),
    claims=(
        Claim(
            name="not noise alone",
            at_least=0,
            over="ratio",
            numerator=ga_gb,
            denominator=_energy,
            tolerance=GRADIENT_ERRORS * u_vector * (ga_ga * gb_gb).sqrt(),
            null_value=0.0,
            population=True,
            says="The gradient of the population loss is resolved from 0: summed over all recorded steps, the share of "
            "signal in the energy of the minibatch gradients is at least 0. Whole model, Euclidean norm.",
            caveat="The share is never negative in expectation, so that FAILS would refute the independence of the "
            "halves, and INCONCLUSIVE means that noise hides the signal. HOLDS with a small share says that almost all "
            "of each gradient is noise; it does not refute anything.",
        ),
    ),
    caveats=("1/(1 + noise_scale) of the same window. Ratios of single steps are noise; read windows, sum over sum.",),
)
