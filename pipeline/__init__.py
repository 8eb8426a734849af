"""Dagster: a run is a partition, a metric an asset, a claim a check. And the command ``lemmata``."""

from pipeline.caches import keep_at_home

keep_at_home()  # before anything here imports matplotlib or numba
