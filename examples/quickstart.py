"""Record a training run and read its verdicts: a small network on 1,797 handwritten digits, a few seconds on a CPU.

Run it with: python examples/quickstart.py
"""

from datetime import datetime

import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

from analysis.geometry import geometry
from analysis.measure import measure
from analysis.registry import metrics
from tracer import Tracer
from tracer.store import Trace

torch.manual_seed(0)
torch.set_num_threads(1)  # tensors this small gain nothing from more

inputs, targets = load_digits(return_X_y=True)
images, labels = torch.tensor(inputs / 16, dtype=torch.float32), torch.tensor(targets)
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

run = f"quickstart-{datetime.now():%Y%m%d-%H%M%S}"
with Tracer(run, model, optimizer, probes=["look_back"], config={"seed": 0}) as tracer:
    for step in range(400):
        rows = torch.randint(len(images), (64,))
        optimizer.zero_grad()
        loss = tracer.loss(lambda: cross_entropy(model(images[rows]), labels[rows]), batch=step)  # noqa: B023
        loss.backward()
        optimizer.step()
print(f"recorded {tracer.step} steps in {tracer.path}, last loss {loss.item():.3f}\n")

tables = geometry(Trace(tracer.path))  # the only line that reads vectors
for name, metric in metrics().items():
    for verdict in measure(metric, tables).verdicts.iter_rows(named=True):
        print(f"{verdict['status']:<15} {name}: {verdict['claim']}\n{'':<15} {verdict['reason']}")
print(f"\nThe same in the browser: lemmata materialize {run} && lemmata ui")
