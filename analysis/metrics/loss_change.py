"""Loss change of each step, between the two changes that the gradients at its ends predict."""

from analysis.biases import reshuffling
from analysis.columns import Units, dg_d, gx_d, gy_d, loss_x, loss_y
from analysis.metric import Claim, Metric
from analysis.rounding import forward_difference_rounding, loss_difference_rounding, loss_rounding, resolved
from analysis.series import cumulative, exponential_mean, running_mean

_change = loss_x - loss_y
_gap, _gap_rounding = resolved(_change - gx_d, -dg_d / 2, loss_difference_rounding)
_forward, _forward_rounding = resolved(_change - gy_d, dg_d / 2, forward_difference_rounding)

metric = Metric(
    name="loss_change",
    family="D",
    catalogue=("D3",),
    title="Loss change and its two predictions",
    paper="After Tran, Zhang, Cutkosky (2024), arXiv:2407.01825, sections 3.1 and 4.2",
    formula="f(x) − f(y)",
    units=Units(loss=1),
    value=_change,
    tolerance=loss_rounding,
    pairings=("previous", "next"),
    blocks="no",
    series=(
        running_mean(),
        exponential_mean(0.99),
        cumulative(title="cumulative loss change"),
        cumulative("cumulative_update_correlation", "cumulative ⟨∇f(x), x − y⟩: above it if convex", gx_d),
        cumulative("cumulative_descent_term", "cumulative ⟨∇f(y), x − y⟩: below it if convex", gy_d),
    ),
    claims=(
        Claim(
            name="the loss falls",
            at_most=0,
            over="on average",
            null_value=0.0,
            population=True,
            biases=(reshuffling,),
            says="The population loss falls along the path: f(x_t, z_t) − f(x_{t−1}, z_t), on fresh minibatches, is at "
            "most 0 on average over the recorded steps. It depends on no norm.",
            caveat="Null value: 0, for pure noise and for any run at rest. It is about the mean change, not about "
            "every step, and about the training loss, not about held-out data.",
        ),
        Claim(
            name="convex: below the update correlation",
            at_most=0,
            over="on average",
            quantity=_gap,
            tolerance=_gap_rounding,
            null_value=0.0,
            says="The loss changes by no more than the gradient at the end of the step says: f(x) − f(y) ≤ ⟨∇f(x), "
            "x − y⟩ on average over the recorded steps, as convexity demands. Population on fresh minibatches, "
            "each minibatch's own loss in-sample; it depends on no norm.",
            caveat="The mean of the convexity gap: 0 on a linear loss or pure noise. A violation refutes convexity on "
            "the steps made, not descent; none says nothing about points off the path.",
        ),
        Claim(
            name="convex: above the descent term",
            at_least=0,
            over="on average",
            quantity=_forward,
            tolerance=_forward_rounding,
            null_value=0.0,
            says="The loss falls by no more than the gradient at the start of the step promised: f(x) − f(y) ≥ ⟨∇f(y), "
            "x − y⟩ on average over the recorded steps, as convexity demands. Population on fresh minibatches, "
            "each minibatch's own loss in-sample; it depends on no norm.",
            caveat="The mean of the forward gap: 0 on a linear loss or pure noise. A violation refutes convexity on "
            "the steps made, not descent; none says nothing about points off the path.",
        ),
    ),
    caveats=(
        "Σ over fresh pairs differs from F(x_T) − F(x_0) by a sum of mean 0: a drift between this sum and the loss on "
        "a fixed set of data means reused data or in-sample pairs. In-sample the sum is lower by lr tr Σ per step.",
        "The three sums: Σ ⟨∇f(x), d⟩ − Σ change = −Σ gap, and Σ change − Σ ⟨∇f(y), d⟩ = Σ forward gap.",
    ),
)
