"""SGD on a convex loss: the average iterate."""

from analysis.proofs.terms import (
    CONVEXITY,
    DROP,
    ENERGY,
    MEAN_GAP,
    MEAN_GAP_ROUNDING,
    PLAIN_SGD,
    TELESCOPE,
    ee,
    g_g,
    rate,
)
from analysis.proving.proof import Line, Proof

proof = Proof(
    name="sgd_average",
    title="SGD on a convex loss, average iterate",
    paper="Zinkevich (2003); Nemirovski, Juditsky, Lan, Shapiro (2009)",
    assumes=("F is convex towards u", "minibatches are drawn independently of the past"),
    needs=PLAIN_SGD,
    lines=(ENERGY, TELESCOPE, DROP, CONVEXITY),
    bounds=(
        Line(
            name="average loss above F(u)",
            left=MEAN_GAP,
            right=(ee.first() + (rate**2 * g_g).sum()) / (2 * rate.sum()),
            over="run",
            uses="all lines",
            says="Σ lr (F(x_t) − F(u)) / Σ lr ≤ (‖x_0 − u‖² + Σ lr² ‖g_t‖²) / (2 Σ lr)",
            tolerance=MEAN_GAP_ROUNDING,
        ),
    ),
    caveat=(
        "A reference point taken from the run depends on its gradients: Σ ⟨g_t, x_t − x_T⟩ of SGD is positive whatever "
        "the loss. Only the comparison with the loss difference says something about convexity."
    ),
)
