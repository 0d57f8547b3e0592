"""See `wire.runs`."""
