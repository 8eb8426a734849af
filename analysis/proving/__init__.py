"""Proofs of optimisation theory, held against a run line by line."""
