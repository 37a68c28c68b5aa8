"""Which tasks come next, one file each."""
