"""Where training episodes begin, one file each."""
