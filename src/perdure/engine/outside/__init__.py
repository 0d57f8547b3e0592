"""See `wire.outside`."""
