"""See `wire.insight`."""
