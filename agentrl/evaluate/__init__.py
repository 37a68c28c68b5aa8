"""Success on tasks that are not trained on, with intervals, and pages to look at it."""
