"""Training: from scored groups to weights, and the runs round it."""
