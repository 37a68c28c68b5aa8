"""Episodes, groups and the worker that keeps many of them in flight."""
