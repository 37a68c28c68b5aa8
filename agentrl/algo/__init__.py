"""Credit, losses and the schedules round them: pure functions of data, one file per method."""
