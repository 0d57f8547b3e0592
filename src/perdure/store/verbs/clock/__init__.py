"""See `wire.clock`."""
