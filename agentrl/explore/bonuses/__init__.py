"""What is paid for the sake of exploring, one file each."""
