"""From a trace to numbers, and from numbers to verdicts."""
