"""How the episodes of a step are spent: one file per strategy."""
