"""From values to verdicts: the rules, the statistics of steps that depend on each other, windows and tensors."""
