"""How far one step turns the gradient: the cosine between the gradients of one minibatch at both ends of the step."""

from analysis.columns import Units, gx_gx, gx_gy, gy_gy
from analysis.metric import Claim, Metric

metric = Metric(
    name="gradient_cosine",
    units=Units(),
    value=gx_gy / (gx_gx * gy_gy).sqrt(),  # 1: the step did not turn it, below 0: by more than a right angle
    claim=Claim(at_least=0, over="on average"),
)
