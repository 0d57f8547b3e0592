"""See `wire.steering`."""
