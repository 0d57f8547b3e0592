"""Records, operations and their checks; errors, limits, times."""
