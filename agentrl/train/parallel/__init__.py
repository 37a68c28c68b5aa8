"""Training backends behind `core.protocols.Parallel`, one file each."""
