"""Records, operations and checks; errors, limits, times."""
