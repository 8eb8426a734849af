"""Benchmarks: plain scripts that time Lemmata beside its peers. ``python -m tests.benchmarks --help``."""
