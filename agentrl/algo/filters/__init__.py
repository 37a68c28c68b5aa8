"""Which completed groups are trained on, one file each."""
