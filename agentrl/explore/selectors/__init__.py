"""Which cell of the archive is returned to: one file each."""
