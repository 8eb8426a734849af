"""Dagster: a run is a partition, a metric an asset, a claim a check. And the command ``lemmata``."""
