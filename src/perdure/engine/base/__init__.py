"""See `wire.base`."""
