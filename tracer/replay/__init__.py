"""Ask a stored minibatch at a stored point: the loss, and what it takes, again; see docs/replay.md."""
